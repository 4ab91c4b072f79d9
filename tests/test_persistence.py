import builtins
import io
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from fastnet import persistence
from fastnet.network import Network
from fastnet.persistence import SCHEMA_VERSION, InvalidFileError
from tests.test_network import shares_its_buffer, with_any_bits

SUFFIXES = (".npz", ".safetensors")


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"network{request.param}"


def example(**changes):
    arguments = {"layer_sizes": [3, 4, 2], "activation": "tanh", "output_activation": "softmax", "dtype": "float32"}
    return Network(**arguments | changes).initialize(seed=1)


def contents(path):
    """The strings and arrays in a file, read by other means than fastnet's."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            members = dict(archive)
        return {name: str(members.pop(name)) for name in list(members) if members[name].dtype.kind == "U"}, members
    with safetensors.safe_open(path, framework="np") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewrite(path, strings, arrays):
    if path.suffix == ".npz":
        np.savez(path, **strings, **arrays)
    else:
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        safetensors.numpy.save_file(arrays, path, metadata=strings)


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("sizes", [[1, 1], [3, 20, 2], [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]])
    def test_every_bit(self, path, sizes, bias, dtype):
        network = with_any_bits(Network(sizes, "silu", "exponential", bias, dtype))
        network.weights[0][0, 0] = -0.0
        network.save(path)
        loaded = Network.load(path)
        assert loaded == network
        assert loaded.parameters.tobytes() == network.parameters.tobytes()
        assert loaded.architecture == network.architecture
        assert shares_its_buffer(loaded)

    def test_kinds_of_paths(self, path):
        network = example()
        network.save(str(path))
        assert Network.load(os.fspath(path)) == network
        upper = path.with_suffix(path.suffix.upper())
        network.save(upper)
        assert Network.load(upper) == network

    def test_optimizer_state_stays_behind(self, path):
        network = example()
        network._training = {"slots": np.ones(3)}
        network.save(path)
        assert Network.load(path)._training is None

    def test_subclass(self, path):
        class Subclass(Network):
            pass

        example().save(path)
        assert type(Subclass.load(path)) is Subclass

    def test_what_others_read(self, path):
        network = example()
        network.save(path)
        strings, arrays = contents(path)
        assert strings["format"] == "fastnet"
        assert strings["schema_version"] == "1"
        assert json.loads(strings["architecture"]) == network.architecture
        assert sorted(arrays) == ["biases.0", "biases.1", "weights.0", "weights.1"]
        for i in range(2):
            np.testing.assert_array_equal(arrays[f"weights.{i}"], network.weights[i], strict=True)
            np.testing.assert_array_equal(arrays[f"biases.{i}"], network.biases[i], strict=True)

    def test_what_others_write(self, path):
        network = example()
        strings = {"format": "fastnet", "schema_version": "1", "architecture": json.dumps(network.architecture)}
        arrays = {f"weights.{i}": array.copy() for i, array in enumerate(network.weights)}
        rewrite(path, strings, arrays | {f"biases.{i}": array.copy() for i, array in enumerate(network.biases)})
        assert Network.load(path) == network

    def test_other_byte_order_and_memory_order(self, tmp_path):
        path = tmp_path / "network.npz"
        network = example()
        network.save(path)
        strings, arrays = contents(path)
        rewrite(path, strings, {name: np.asfortranarray(array.astype(">f4")) for name, array in arrays.items()})
        assert Network.load(path) == network

    def test_same_file_each_time(self, tmp_path):
        for name in ("a.npz", "b.npz"):
            example().save(tmp_path / name)
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


class TestWriting:
    @pytest.mark.parametrize("name", ["network.pt", "network", "network.npz.gz", ".npz"])
    def test_suffix(self, tmp_path, name):
        for act in (example().save, Network.load):
            with pytest.raises(ValueError, match=r"^path must end in \.safetensors or \.npz; got .*" + name):
                act(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_replaces(self, path):
        example().save(path)
        other = example(output_activation="identity")
        other.save(path)
        assert Network.load(path) == other
        assert list(path.parent.iterdir()) == [path]

    def test_failure_leaves_the_old_file(self, path, monkeypatch):
        network = example()
        network.save(path)

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            example(dtype="float64").save(path)
        monkeypatch.undo()
        assert list(path.parent.iterdir()) == [path]
        assert Network.load(path) == network

    def test_missing_folder(self, path):
        with pytest.raises(FileNotFoundError):
            example().save(path.parent / "missing" / path.name)

    def test_through_a_link(self, path):
        link = path.with_name(f"link{path.suffix}")
        link.symlink_to(path)
        example().save(link)
        assert link.is_symlink()
        assert Network.load(path) == example()

    def test_permissions_are_the_usual_ones(self, path):
        example().save(path)
        usual = path.with_name("usual")
        usual.touch()
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)

    def test_without_safetensors(self, tmp_path, monkeypatch):
        path = tmp_path / "network.safetensors"
        example().save(path)
        before = path.read_bytes()
        real_import = builtins.__import__

        def refuse(name, *args):
            if name.startswith("safetensors"):
                raise ImportError(name)
            return real_import(name, *args)

        monkeypatch.setattr(builtins, "__import__", refuse)
        for act in (example(bias=False).save, Network.load):
            with pytest.raises(ImportError, match=r"pip install 'fastnet\[interop\]'"):
                act(path)
        assert path.read_bytes() == before
        example().save(tmp_path / "network.npz")
        assert Network.load(tmp_path / "network.npz") == example()


def same_or_refused(path, data, network):
    """Load damaged data: the network or the one error, nothing else. Say whether it was refused."""
    path.write_bytes(data)
    try:
        loaded = Network.load(path)
    except InvalidFileError as error:
        assert str(error).startswith(f"{path} holds no network that can be read: ")  # noqa: PT017
        return True
    assert loaded == network
    return False


class TestDamage:
    def test_truncated(self, path):
        network = example()
        network.save(path)
        data = path.read_bytes()
        for length in range(0, len(data), 1 if path.suffix == ".safetensors" else 7):
            assert same_or_refused(path, data[:length], network), length

    def test_flipped_bits(self, path):
        network = example()
        network.save(path)
        data = path.read_bytes()
        random = np.random.default_rng(0)
        positions = random.permutation(len(data))[:600]
        refused = 0
        for position in positions.tolist():
            damaged = bytearray(data)
            damaged[position] ^= 1 << int(random.integers(8))
            refused += same_or_refused(path, bytes(damaged), network)
        # The bytes that do not matter are dates and the like in the zip archive, and the name of the digest.
        assert refused > 0.7 * len(positions)

    @pytest.mark.parametrize("element", [0, -1])
    def test_flipped_bits_of_a_tensor(self, path, element):
        example().save(path)
        strings, arrays = contents(path)
        arrays["biases.1"].view(np.uint32)[element] ^= 1
        rewrite(path, strings, arrays)
        with pytest.raises(InvalidFileError, match="its contents are damaged: "):
            Network.load(path)

    def test_foreign_bytes(self, path):
        random = np.random.default_rng(0)
        array = io.BytesIO()
        np.save(array, np.ones(3))
        for data in (b"", b"\0" * 100, b"PK\x03\x04", b"{}", b"\x80\x04N.", random.bytes(5000), array.getvalue()):
            assert same_or_refused(path, data, None)

    def test_the_other_format(self, path):
        example().save(path)
        other = path.with_suffix(".npz" if path.suffix == ".safetensors" else ".safetensors")
        path.rename(other)
        with pytest.raises(InvalidFileError):
            Network.load(other)

    def test_foreign_networks(self, path):
        rewrite(path, {"author": "somebody"}, {"weights.0": np.ones((2, 1))})
        with pytest.raises(InvalidFileError, match="it is not marked as a file of fastnet$"):
            Network.load(path)

    def test_huge_claims(self, tmp_path):
        path = tmp_path / "network.safetensors"
        path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
        with pytest.raises(InvalidFileError):
            Network.load(path)
        header = json.dumps({"weights.0": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(InvalidFileError):
            Network.load(path)

    def test_compressed(self, tmp_path):
        path = tmp_path / "network.npz"
        example().save(path)
        strings, arrays = contents(path)
        np.savez_compressed(path, **strings, **arrays)
        with pytest.raises(InvalidFileError, match="its arrays are compressed$"):
            Network.load(path)

    def test_missing_file(self, path):
        with pytest.raises(FileNotFoundError, match=path.name):
            Network.load(path)
        path.mkdir()
        with pytest.raises(IsADirectoryError):
            Network.load(path)

    def test_no_code_runs(self, tmp_path):
        path = tmp_path / "network.npz"
        for name in ("weights.0", "architecture", "format", "surprise"):
            example().save(path)
            strings, arrays = contents(path)
            members = {**strings, **arrays} | {name: np.array([Exploit()], dtype=object)}
            np.savez(path, **members)
            with pytest.raises(InvalidFileError, match="allow_pickle"):
                Network.load(path)
        path.write_bytes(pickle.dumps(Exploit()))
        with pytest.raises(InvalidFileError):
            Network.load(path)
        assert not Exploit.ran


class Exploit:
    ran = False

    def __reduce__(self):
        return _explode, ()


def _explode():
    Exploit.ran = True


class TestSchema:
    @pytest.mark.parametrize(
        ("version", "message"),
        [
            (str(SCHEMA_VERSION + 1), r"its schema version is '2', from a newer fastnet; this fastnet reads 1$"),
            ("0", r"its schema version is '0'; this fastnet reads 1$"),
            ("one", r"its schema version is 'one'; this fastnet reads 1$"),
            ("9" * 5000, r"\(ValueError\)$"),
        ],
    )
    def test_version(self, path, version, message):
        example().save(path)
        strings, arrays = contents(path)
        rewrite(path, strings | {"schema_version": version, "architecture": "{}"}, arrays)
        with pytest.raises(InvalidFileError, match=message):
            Network.load(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"layer_sizes": [3, 4, 4]},
                r"biases\.1 must have shape \(4,\) and dtype float32; it has \(2,\) and float32$",
            ),
            ({"layer_sizes": [3, 4]}, r"its architecture is invalid: activation must be a name, or a sequence"),
            ({"layer_sizes": [3, 4], "activation": []}, r"biases\.0 must have|biases\.1 does not belong"),
            ({"layer_sizes": [3, 4, 2, 1], "activation": ["tanh"] * 2}, r"biases\.2 is missing$"),
            ({"layer_sizes": [10**9, 10**9, 2]}, r"biases\.0 must have shape \(1000000000,\)"),
            ({"layer_sizes": [3, 4.0, 2]}, r"its architecture is invalid: layer_sizes\[1\] must be an integer"),
            ({"layer_sizes": "342"}, r"its architecture is invalid: layer_sizes must be a sequence"),
            ({"dtype": "float64"}, r"must have shape \(4,\) and dtype float64; it has \(4,\) and float32$"),
            ({"dtype": "float16"}, r"its architecture is invalid: dtype must be"),
            ({"dtype": ["float32"]}, r"its architecture is invalid: dtype must be"),
            ({"bias": False}, r"biases\.0 does not belong to its architecture$"),
            ({"bias": 1}, r"its architecture is invalid: bias must be True or False"),
            ({"activation": "tanhh"}, r"its architecture is invalid: activation must be one of"),
            (
                {"output_activation": "__import__('os')"},
                r"its architecture is invalid: output_activation must be one of",
            ),
            ({"extra": 1}, r"its architecture is invalid: it must be a JSON object of layer_sizes, "),
        ],
    )
    def test_architecture(self, path, change, message):
        example().save(path)
        strings, arrays = contents(path)
        text = json.dumps(json.loads(strings["architecture"]) | change)
        rewrite(path, strings | {"architecture": text}, arrays)
        with pytest.raises(InvalidFileError, match=message) as error:
            Network.load(path)
        assert isinstance(error.value, ValueError)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"layer_sizes": [3, 1]}', "NaN"])
    def test_not_an_architecture(self, path, text):
        example().save(path)
        strings, arrays = contents(path)
        rewrite(path, strings | {"architecture": text}, arrays)
        with pytest.raises(InvalidFileError, match=r"its architecture is invalid: "):
            Network.load(path)

    def test_another_valid_architecture_is_damage(self, path):
        example().save(path)
        strings, arrays = contents(path)
        rewrite(path, strings | {"architecture": strings["architecture"].replace("tanh", "relu")}, arrays)
        with pytest.raises(InvalidFileError, match="its contents are damaged"):
            Network.load(path)

    def test_no_architecture(self, path):
        example().save(path)
        strings, arrays = contents(path)
        del strings["architecture"]
        rewrite(path, strings, arrays)
        with pytest.raises(InvalidFileError, match="it has no architecture$"):
            Network.load(path)

    @pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32])
    def test_dtypes(self, path, kind):
        example().save(path)
        strings, arrays = contents(path)
        arrays["weights.1"] = arrays["weights.1"].astype(kind)
        rewrite(path, strings, arrays)
        with pytest.raises(InvalidFileError, match=r"weights\.1 must have .*dtype"):
            Network.load(path)

    def test_arrays(self, path):
        example().save(path)
        strings, arrays = contents(path)
        weights = arrays.pop("weights.1")
        rewrite(path, strings, arrays)
        with pytest.raises(InvalidFileError, match=r"weights\.1 is missing$"):
            Network.load(path)
        rewrite(path, strings, arrays | {"weights.1": weights.T})
        with pytest.raises(InvalidFileError, match=r"weights\.1 must have shape \(4, 2\) .* it has \(2, 4\)"):
            Network.load(path)
        rewrite(path, strings, arrays | {"weights.1": weights, "weights.2": weights})
        with pytest.raises(InvalidFileError, match=r"weights\.2 does not belong"):
            Network.load(path)


def test_extra_bytes_in_a_zip_member(tmp_path):
    path = tmp_path / "network.npz"
    example().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "not an array")
    with pytest.raises(InvalidFileError, match=r"notes\.txt does not belong to its architecture$"):
        Network.load(path)


def test_import_is_light():
    code = "import sys, fastnet.persistence; print('safetensors' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
    assert persistence.SCHEMA_VERSION == 1
