"""What the gates ask of a view. The defaults were measured (`benchmarks.gates`, docs/adr/0014-gates.md)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GateSettings:
    """Limits; 0 turns a check off.

    Attributes:
        turn_error_deg, turn_error_share: the turn found may be off by so many degrees, or by this share of the
            commanded one where that is more.
        turn_margin_db: by how much less the turn found must leave unexplained than the opposite one and none at all.
        turn_agreement: the least correlation of a view's detail with the turned reference's.
        move_error_m, move_error_share: the move found may be off by so many metres along its way, or by this share.
        move_turn_deg: by how many degrees a camera that moves may be turned wrongly.
        move_agreement: the least correlation of a view's detail with what geometry predicts at the commanded pose.
        direction_deg: how far the direction of a move may be off where no depth is known.
        direction_parallax_px: by how many pixels things must move so that this can be told.
        covisible_share: the least share of a view that another must show to judge it.
        cycle_psnr_db: how well a place must look as it did before.
        least_sharpness, most_sharpness: finest detail against the next coarser, in units of the anchor's.
        jump: how much a view may differ from the one before beyond their geometry, as a share of its contrast.
        exposure: how much brighter or darker, as a factor, a view may be than the one before.
        track_shift: how far an object may jump between two views, in thousandths of the image, beyond the turn.
        track_growth: by which factor its size may change.
        need_proof: whether a view fails whose pose no gate could judge.
        there_and_back: whether generative worlds imagine each path of a photo back again, too, and `cycle` compares
            (`ThereAndBack`): twice the frames, and none is sent before the last one is made.
        estimate_depth: whether a photo that comes without depth gets an estimated one for `reprojection`, by the
            teacher's `depth_model`: on with a good metric model, by which moves are judged by how far they went. With
            the tiny one a third or more of the right moves fail as well: its metres are not that good.

    Those of turns, of moves and of sharpness lie between what was measured of right and of wrong views (the table in
    docs/adr/0014-gates.md, on the panoramas and rooms named there). The others are round values that let nearly all
    right views of those pass; of wrong views only how many all limits together catch was counted.
    """

    turn_error_deg: float = 2.0
    turn_error_share: float = 0.08
    turn_margin_db: float = 3.0
    turn_agreement: float = 0.4
    move_error_m: float = 0.02
    move_error_share: float = 0.12
    move_turn_deg: float = 2.0
    move_agreement: float = 0.5
    direction_deg: float = 15.0
    direction_parallax_px: float = 0.5
    covisible_share: float = 0.2
    cycle_psnr_db: float = 24.0
    least_sharpness: float = 0.35
    most_sharpness: float = 1.8
    jump: float = 0.8
    exposure: float = 1.5
    track_shift: float = 200.0
    track_growth: float = 3.0
    need_proof: bool = True
    there_and_back: bool = False
    estimate_depth: bool = False
