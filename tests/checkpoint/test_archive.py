"""A state is read back bit for bit; damage is reported."""

import dataclasses
import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet_keras.checkpoint import StateDamaged, encode, read_state
from lenet_keras.errors import LenetKerasError


def assert_same_state(found, expected):
    for part in ("variables", "best"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name].dtype == value.dtype
            np.testing.assert_array_equal(ours[name], value)
    assert found.history == expected.history
    assert found.progress == expected.progress


def test_a_state_is_read_back(state, tmp_path):
    path = tmp_path / "state.npz"
    path.write_bytes(encode(state))
    assert_same_state(read_state(path), state)


def test_numpy_alone_reads_the_format_and_the_variables(state, tmp_path):
    with np.load(io.BytesIO(encode(state)), allow_pickle=False) as archive:
        assert '"format": 2' in str(archive["meta"])
        assert len(str(archive["sha256"])) == 64
        np.testing.assert_array_equal(archive["variables/000:kernel"], state.variables["000:kernel"])


@pytest.mark.parametrize("damage", ["missing", "empty", "a folder", "text"])
def test_a_file_that_is_not_a_state_is_reported_in_one_line(tmp_path, damage):
    path = tmp_path / "state.npz"
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"not a state")
    with pytest.raises(StateDamaged, match=r"state\.npz cannot be read") as refused:
        read_state(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "large", "packed"])
def test_what_is_not_a_state_is_neither_waited_for_nor_read_to_its_end(tmp_path, kind):
    path = tmp_path / "state.npz"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.touch()
        os.truncate(path, 2**40)  # takes no space
    elif kind == "packed":
        np.savez_compressed(path, meta=np.zeros(2**26, np.uint8))
    else:
        path.symlink_to(kind)
    with pytest.raises(StateDamaged, match=r"state\.npz cannot be read: .*(regular|larger|it unpacks to \d+ bytes)"):
        read_state(path)


def test_a_state_truncated_anywhere_is_damaged(state, tmp_path):
    content = encode(state)
    path = tmp_path / "state.npz"
    for length in range(0, len(content), 11):
        path.write_bytes(content[:length])
        with pytest.raises(StateDamaged):
            read_state(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_flipped_bit_goes_unnoticed(tmp_path_factory, data):
    from .conftest import make_state

    state = make_state(2)
    content = bytearray(encode(state))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    path.write_bytes(content)
    try:
        found = read_state(path)
    except StateDamaged:
        return
    assert_same_state(found, state)  # a flipped bit of the archive's own times and flags changes nothing


def test_arrays_of_another_state_are_detected(state, tmp_path):
    """Each array may be intact and the state still be wrong: the checksum covers all of them."""
    other = dataclasses.replace(state, variables={**state.variables, "001:seed": np.array([9, 9], np.uint32)})
    with np.load(io.BytesIO(encode(state))) as ours, np.load(io.BytesIO(encode(other))) as theirs:
        mixed = {**dict(ours), "variables/001:seed": theirs["variables/001:seed"]}
        fewer = {name: array for name, array in ours.items() if name != "best/000:kernel"}
    for arrays in (mixed, fewer):
        path = tmp_path / "state.npz"
        np.savez(path, **arrays)
        with pytest.raises(StateDamaged, match="checksum"):
            read_state(path)


def test_another_format_is_not_damage_but_another_version(state, tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    monkeypatch.setattr("lenet_keras.checkpoint.STATE_FORMAT", 99)
    path.write_bytes(encode(state))
    monkeypatch.undo()
    with pytest.raises(LenetKerasError, match="has format 99, this version reads 2") as refused:
        read_state(path)
    assert not isinstance(refused.value, StateDamaged)
