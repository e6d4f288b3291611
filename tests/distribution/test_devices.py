"""Names of devices, and how many devices or cores share a batch."""

import pytest

from lenet_keras.config import parse_devices
from lenet_keras.distribution.strategy import check_divisible, fastest_cores
from lenet_keras.errors import InvalidArgument


def test_devices_have_one_spelling():
    assert parse_devices("gpu:1, GPU:03") == ("GPU:1", "GPU:3")
    assert parse_devices("CPU:0") == ("CPU:0",)


@pytest.mark.parametrize("text", ["", "GPU", "GPU:", "2", "GPU:0;GPU:1", "GPU:-1", "/GPU:0", "GPU:256", "GPU:0,"])
def test_invalid_device_names_are_rejected(text):
    with pytest.raises(InvalidArgument, match="devices must be names like"):
        parse_devices(text)


@pytest.mark.parametrize(("text", "message"), [("CPU:1,CPU:01", "differ"), ("CPU:0,GPU:0", "all CPUs or all GPUs")])
def test_devices_that_cannot_be_combined_are_rejected(text, message):
    with pytest.raises(InvalidArgument, match=message):
        parse_devices(text)


@pytest.mark.parametrize(
    ("batch_size", "cores", "expected"),
    [
        (64, 1, 1), (64, 2, 2), (64, 16, 2), (32, 2, 1), (63, 2, 1), (1, 8, 1), (256, 2, 2), (256, 8, 8), (256, 7, 4),
        (96, 8, 3), (130, 4, 2), (1021, 8, 1),
    ],
)  # fmt: skip
def test_cores_get_equal_parts_of_32_images_or_more(batch_size, cores, expected):
    assert fastest_cores(batch_size, cores) == expected


@pytest.mark.parametrize(
    ("batch_size", "replicas", "nearest"),
    [(65, 2, "s are 64 and 66"), (63, 4, "s are 60 and 64"), (3, 8, " is 8"), (9, 8, "s are 8 and 16")],
)
def test_a_batch_that_cannot_be_shared_is_rejected_with_the_nearest_that_can(batch_size, replicas, nearest):
    with pytest.raises(InvalidArgument, match=rf"{batch_size} images .* {replicas} devices.* size{nearest}\.$"):
        check_divisible(batch_size, replicas)


def test_a_batch_that_can_be_shared_is_accepted():
    check_divisible(64, 4)
