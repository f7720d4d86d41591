"""Which files are mutated, and which tests must notice a fault in each: the closest to the code first."""

PLAN: dict[str, dict[str, tuple[str, ...]]] = {  # module -> file -> its tests
    "losses": {
        "losses/alignment.py": ("tests/losses/test_alignment.py", "tests/losses/test_multimodal_terms.py"),
        "losses/branches.py": (
            "tests/losses/test_branches.py",
            "tests/losses/test_draws.py",
            "tests/losses/test_criterion.py",
        ),
        "losses/center.py": ("tests/losses/test_center.py", "tests/losses/test_criterion.py"),
        "losses/clip_reid.py": (
            "tests/processor/test_clip_reid_options.py",
            "tests/processor/test_clip_reid_steps.py",
        ),
        "losses/criterion.py": ("tests/losses/test_criterion.py", "tests/losses/test_model_b_criterion.py"),
        "losses/cross_modal.py": ("tests/losses/test_cross_modal.py", "tests/processor/test_clip_reid_steps.py"),
        "losses/distance.py": ("tests/losses/test_triplet.py",),
        "losses/distill.py": ("tests/losses/test_distill.py",),
        "losses/image_text.py": ("tests/losses/test_image_text.py",),
        "losses/irra.py": ("tests/processor/test_irra_stage.py", "tests/processor/test_irra_steps.py"),
        "losses/identity.py": ("tests/losses/test_identity.py", "tests/losses/test_criterion.py"),
        "losses/margin_softmax.py": ("tests/losses/test_identity.py",),
        "losses/metric.py": (
            "tests/losses/test_metric.py",
            "tests/losses/test_routing.py",
            "tests/losses/test_criterion.py",
            "tests/losses/test_model_b_criterion.py",
        ),
        "losses/multimodal.py": ("tests/losses/test_multimodal_terms.py",),
        "losses/numeric.py": ("tests/losses/test_numeric.py", "tests/losses/test_triplet.py"),
        "losses/own_rows.py": ("tests/losses/test_own_rows.py",),
        "losses/pairs.py": ("tests/losses/test_pairs.py", "tests/losses/test_triplet.py"),
        "losses/pcb.py": ("tests/processor/test_pcb_steps.py",),
        "losses/readings.py": (
            "tests/losses/test_criterion.py",
            "tests/losses/test_branches.py",
            "tests/losses/test_model_b_criterion.py",
        ),
        "losses/routing.py": ("tests/losses/test_routing.py",),
        "losses/spectral.py": ("tests/losses/test_spectral.py",),
        "losses/supcon.py": ("tests/losses/test_supcon.py", "tests/losses/test_model_b_criterion.py"),
        "losses/transreid.py": (
            "tests/losses/test_criterion.py",
            "tests/losses/test_model_b_criterion.py",
            "tests/losses/test_model_b_keys.py",
        ),
        "losses/triplet.py": ("tests/losses/test_triplet.py",),
        "losses/tripletx.py": ("tests/losses/test_tripletx.py",),
    },
    "datasets/sampler": {"datasets/sampler.py": ("tests/datasets/test_sampler.py",)},
    "utils/ranking": {
        "utils/ranking/blocks.py": ("tests/utils/ranking/test_blocks.py", "tests/utils/test_metrics.py"),
        "utils/ranking/branches.py": ("tests/processor/evaluation/test_branches.py",),
        "utils/ranking/camera_pairs.py": (
            "tests/utils/ranking/test_slices.py",
            "tests/utils/ranking/test_junk_masks.py",
            "tests/utils/ranking/test_blocks.py",
        ),
        "utils/ranking/distance.py": (
            "tests/utils/ranking/test_distance.py",
            "tests/utils/test_metrics.py",
            "tests/utils/ranking/test_expansion.py",
            "tests/utils/ranking/test_reranking.py",
        ),
        "utils/ranking/expansion.py": ("tests/utils/ranking/test_expansion.py",),
        "utils/ranking/on_gpu.py": ("tests/utils/ranking/test_on_gpu.py",),
        "utils/ranking/protocol.py": ("tests/utils/test_metrics.py", "tests/utils/ranking/test_junk_masks.py"),
        "utils/ranking/rank.py": (
            "tests/utils/test_metrics.py",
            "tests/utils/test_evaluator.py",
            "tests/utils/ranking/test_junk_masks.py",
        ),
        "utils/ranking/rank_list.py": (
            "tests/utils/ranking/test_rank_list.py",
            "tests/utils/ranking/test_junk_masks.py",
        ),
        "utils/ranking/reranking.py": ("tests/utils/ranking/test_reranking.py",),
        "utils/ranking/spectral.py": ("tests/utils/ranking/test_spectral.py",),
        "utils/ranking/set_scores.py": ("tests/processor/evaluation/test_query_sets.py",),
        "utils/ranking/slices.py": ("tests/utils/ranking/test_slices.py", "tests/utils/ranking/test_junk_masks.py"),
        "utils/ranking/verification.py": (
            "tests/utils/ranking/test_verification.py",
            "tests/utils/ranking/test_junk_masks.py",
        ),
    },
    "utils/statistics": {
        "utils/statistics/bootstrap.py": ("tests/utils/statistics/test_bootstrap.py",),
        "utils/statistics/paired.py": ("tests/utils/statistics/test_paired.py",),
    },
    "configs/phases": {
        "configs/phases.py": (
            "tests/processor/test_phases.py",
            "tests/configs/test_phases.py",
            "tests/configs/test_phase_problems.py",
        ),
    },
    "configs/loss_weights": {
        "configs/loss_weights.py": (
            "tests/processor/test_phases.py",
            "tests/configs/test_phases.py",
            "tests/configs/test_text_losses.py",
            "tests/configs/test_set_losses.py",
        ),
    },
    "model/layers/masked_fusion": {"model/layers/masked_fusion.py": ("tests/model/test_masked_fusion.py",)},
    "model/layers/masked_norm": {"model/layers/masked_norm.py": ("tests/model/test_masked_norm.py",)},
    "model/layers/mer": {"model/layers/mer.py": ("tests/model/test_mer.py",)},
    "model/pcb": {
        "model/pcb.py": ("tests/model/test_pcb.py", "tests/model/test_parts.py", "tests/model/test_pcb_loading.py"),
    },
}
