"""Nets that Caffe refuses are refused with a clear error, unless there is a reason to run them."""

import json
from pathlib import Path

import pytest

from cortado.netdef import Net
from cortado.proto.errors import ConfigError

FOLDER = Path(__file__).parents[1] / "goldens" / "errors"
RECORDS = json.loads((FOLDER / "errors.json").read_text())

#: What Caffe cannot run and we can; listed in docs/differences.md.
UNDETERRED = dict.fromkeys(
    [
        "accuracy_force_backward",
        "batchreindex_force_backward",
        "embed_force_backward",
        "filter_force_backward",
        "infogain_force_backward_three_bottoms",
        "threshold_force_backward",
    ],
    "no gradient is asked of indices, labels and layers that have none",
) | {
    "pool_stochastic_forward_cpu": "stochastic pooling works on the CPU too",
    "softmax_loss_two_tops": "the second top is the softmax, as Caffe's documentation says",
    "softmax_loss_two_tops_two_weights": "as above",
}

#: For each case, words of the message that shows the right thing was refused.
WORDS = {
    "accuracy_label_count": "need 16 labels, got 4",
    "batchnorm_1d_input": "at least 2 axes",
    "bilinear_filler_non_square": "square kernel",
    "concat_axis_and_dim": "not both",
    "concat_shape_mismatch": "equal shapes except at axis 1",
    "contrastive_spatial": "one shape (N, C)",
    "conv_group_indivisible": "group must divide",
    "conv_group_output_indivisible": "group must divide",
    "conv_kernel_count_wrong": "once for each of the 2 spatial axes",
    "conv_kernel_hw_on_3d": "2 spatial axes only",
    "conv_kernel_missing": "must be given",
    "conv_num_output_missing": "num_output",
    "conv_stride_both_forms": "not both",
    "crop_offset_count": "offset must be given",
    "crop_out_of_bounds": "reaches beyond axis 2",
    "eltwise_coeff_count": "one coeff for each",
    "eltwise_one_bottom": "at least 2 bottoms",
    "eltwise_prod_coeff": "operation SUM only",
    "eltwise_shape_mismatch": "one shape",
    "euclidean_count_mismatch": "same count",
    "exp_negative_base": "greater than 0",
    "flatten_inplace": "in place",
    "infogain_no_matrix": "source",
    "inner_product_axis_out_of_range": "axis 4 is outside",
    "lrn_3d_input": "4 axes",
    "pool_3d_input": "4 axes",
    "pool_ave_two_tops": "second top",
    "pool_global_with_kernel": "no kernel size",
    "pool_global_with_stride2": "stride 1 only",
    "pool_kernel_h_only": "kernel_h and kernel_w",
    "pool_no_kernel": "kernel_size must be given",
    "pool_pad_ge_kernel": "smaller than the kernel",
    "pool_stochastic_pad": "no padding",
    "prelu_5d_input": "2 to 4 axes",
    "recurrent_cont_shape": "(T, N)",
    "reshape_indivisible_infer": "cannot take the shape",
    "reshape_inplace": "in place",
    "reshape_two_inferred": "one -1 at most",
    "scale_num_axes_too_many": "num_axes must be",
    "scale_shape_mismatch": "does not fit",
    "sigmoid_ce_count_mismatch": "same count",
    "slice_indivisible": "cannot be cut",
    "slice_points_count": "slice_point",
    "slice_points_not_increasing": "must rise",
    "softmax_loss_axis0": "same first axis",
    "softmax_loss_batch_mismatch": "same first axis",
    "tile_missing_tiles": "tiles must be given",
    "unknown_filler": "unknown filler type",
    "unknown_layer_type": "unknown layer type",
}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["name"])
def test_refused_as_in_caffe(record: dict) -> None:
    name, path = record["name"], FOLDER / record["file"]
    if not record["aborts"] or name in UNDETERRED:
        assert Net(path, record["phase"]).outputs
        return
    with pytest.raises(ConfigError) as caught:
        Net(path, record["phase"])
    message = str(caught.value)
    assert WORDS.get(name, "") in message
    assert path.name in message, "the place in the file is named"
