"""What the fields of a config say against each other: each is allowed by itself, and together they are not."""

from icre_jax.settings.fields import Data, Settings

_MOST_BATCH_BYTES = 2**30  # of 8-bit pixels; the network's own maps are many times as large
_MOST_RENDERED = 1_000_000  # images per camera, of all people together


def find_contradictions(settings: Settings) -> list[str]:
    """A sentence for each, with the values and how to mend it."""
    return [
        *_check_data(settings.data),
        *_check_memory(settings),
        *_check_losses(settings),
        *_check_enhancement(settings),
        *_check_exclusion(settings),
        *_check_selection(settings),
        *_check_start(settings),
    ]


def _check_data(data: Data) -> list[str]:
    """What the fields of `Data` say against each other."""
    findings = []
    if len({*data.train_splits}) < len(data.train_splits):
        findings.append(f"data.train_splits names a split twice: {data.train_splits}.")
    card = data.card
    if not card.has_validation and "val" in data.train_splits:
        findings.append(f"data.train_splits is {data.train_splits}; {data.dataset} has only ('train',).")
    if card.trials and data.trial not in card.trials:
        allowed = card.describe_trials()
        findings.append(f"data.trial is {data.trial}; {card.name} needs the trial to train and test on, {allowed}.")
    if not card.trials and data.trial is not None:
        findings.append(f"data.trial is {data.trial}; {card.name} has no trials, so it must be None.")
    if data.frames_per_track is not None and not card.has_tracks:
        findings.append(
            f"data.frames_per_track is {data.frames_per_track}; {card.name} has images, not tracks, so it must be None."
        )
    if data.synthetic is not None and card.own_images:
        findings.append(f"data.synthetic is set; {data.dataset} is for own images, so it must be None.")
    elif data.synthetic is not None and card.has_validation != (data.synthetic.num_val_ids > 0):
        needed = "at least 1" if card.has_validation else "0, as there is no validation list"
        findings.append(f"data.synthetic.num_val_ids is {data.synthetic.num_val_ids}; {data.dataset} needs {needed}.")
    return findings


def _check_memory(settings: Settings) -> list[str]:
    """Batches that would take the memory of a machine before anything is computed of them."""
    (height, width), pad, sampling = settings.data.image_size, settings.augment.pad, settings.sampling
    batch = 2 * sampling.num_ids_per_batch * sampling.num_images_per_id
    # Enlarged by the padding, of which a part is cut out again.
    trained, scored = (
        batch * (height + 2 * pad) * (width + 2 * pad) * 3,
        settings.evaluation.batch_size * height * width * 3,
    )
    findings = []
    if trained > _MOST_BATCH_BYTES:
        findings.append(
            f"sampling.num_ids_per_batch {sampling.num_ids_per_batch} x sampling.num_images_per_id "
            f"{sampling.num_images_per_id} x 2 modalities are {batch:,} images of {height} x {width} pixels with "
            f"{pad} around them, {trained:,} bytes; at most {_MOST_BATCH_BYTES:,} are allowed. Lower one of these."
        )
    if scored > _MOST_BATCH_BYTES:
        findings.append(
            f"evaluation.batch_size {settings.evaluation.batch_size} x {height} x {width} pixels are {scored:,} bytes; "
            f"at most {_MOST_BATCH_BYTES:,} are allowed. Lower it."
        )
    synthetic = settings.data.synthetic
    if synthetic is not None:
        people = synthetic.num_train_ids + synthetic.num_val_ids + synthetic.num_test_ids
        if people * synthetic.num_images_per_camera > _MOST_RENDERED:
            findings.append(
                f"data.synthetic asks for {people:,} people with {synthetic.num_images_per_camera:,} images per "
                f"camera; people times images may be at most {_MOST_RENDERED:,}. Lower one of them."
            )
    return findings


def _check_exclusion(settings: Settings) -> list[str]:
    value, card = settings.evaluation.exclude_same_camera, settings.data.card
    if card.own_images and value is None:
        return [f"evaluation.exclude_same_camera is None; {card.name} needs True or False."]
    if not card.own_images and value is not None:
        return [f"evaluation.exclude_same_camera is {value}; {card.name} has a rule of its own, so it must be None."]
    return []


def _check_selection(settings: Settings) -> list[str]:
    metric, splits = settings.checkpoint.best_metric, settings.data.train_splits
    if not metric.startswith("val/") or "val" not in splits:
        return []
    return [
        f"checkpoint.best_metric is {metric!r}, a score of the validation identities, and data.train_splits {splits} "
        "trains on them. Train on ('train',) alone, or choose by a test score."
    ]


def _check_start(settings: Settings) -> list[str]:
    if settings.pretrained is None or settings.init_from is None:
        return []
    return [
        f"pretrained is {settings.pretrained!r} and init_from {settings.init_from!r}; both say where the backbone "
        "starts. Set one of them to None."
    ]


def _check_enhancement(settings: Settings) -> list[str]:
    model, loss, findings = settings.model, settings.loss, []
    enhancement = model.enhancement
    if enhancement.control != "none" and (model.mpfr.enabled or model.sdce.enabled):
        findings.append(
            f"model.enhancement.control is {enhancement.control!r} and stands in the place of MPFR and SDCE. Set "
            "model.mpfr.enabled and model.sdce.enabled to False, or the control to 'none'."
        )
    if enhancement.control == "offset" and (enhancement.join, enhancement.placement) != ("map", "after_layer4"):
        findings.append(
            f"model.enhancement.control is 'offset' with join {enhancement.join!r} and placement "
            f"{enhancement.placement!r}, where the BatchNorm that follows takes an offset out again. It needs join "
            "'map' and placement 'after_layer4'; set these, or choose another control (in an ablation: leave the row "
            "out)."
        )
    if enhancement.placement == "before_layer4":
        if enhancement.join != "map":
            findings.append(
                f"model.enhancement.join is {enhancement.join!r}; it needs model.enhancement.placement 'after_layer4'."
            )
        if model.mpfr.enabled and 4 in model.mpfr.taps:
            findings.append(
                f"model.mpfr.taps is {model.mpfr.taps}; before layer4 MPFR cannot read it. Set them to (1, 2, 3), or "
                "model.enhancement.placement to 'after_layer4'."
            )
        if loss.icg_weight and loss.icg_form == "guided":
            findings.append(
                "loss.icg_form is 'guided', which compares features before and after the enhancement; it needs "
                "model.enhancement.placement 'after_layer4'."
            )
    if loss.icg_weight and loss.icg_form == "guided" and enhancement.join == "concat":
        findings.append(
            "model.enhancement.join is 'concat', which makes the enhanced features longer than those before; "
            "loss.icg_form 'guided' compares the two. Set the join to 'map' or 'vector', or choose another form."
        )
    if loss.guide_weight and not model.mpfr.enabled:
        findings.append(
            f"loss.guide_weight is {loss.guide_weight}; it is of MPFR's map, and model.mpfr.enabled is False. "
            "Set it to 0."
        )
    return findings


def _check_losses(settings: Settings) -> list[str]:
    num_ids, loss, findings = settings.sampling.num_ids_per_batch, settings.loss, []
    if loss.icg_weight and loss.icg_form == "guided" and loss.icg_space == "embeddings":
        findings.append(
            "loss.icg_space is 'embeddings'; loss.icg_form 'guided' compares features before and after the "
            "enhancement, of which only the latter have embeddings. Set it to 'features' or 'unit_features', or choose "
            "another form."
        )
    if num_ids >= 2 or not (loss.icg_weight or loss.triplet_weight):
        return findings
    return [
        *findings,
        f"sampling.num_ids_per_batch is {num_ids}; the ICG and triplet losses compare identities within a batch and "
        "need 2 or more. Raise it, or set loss.icg_weight and loss.triplet_weight to 0.",
    ]
