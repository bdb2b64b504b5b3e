"""What cannot be served says why, and what to do."""

import json
import shutil

import pytest

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.deployment.served_clip_vg import ServedCLIPVG, served_config
from projects.clip_vg_core.runtime import graphs

pytest.importorskip('onnxscript')
pytest.importorskip('openvino')


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / 'exported')


def test_a_folder_that_is_no_export(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match='no exported detector.*export.py'):
        GroundingInferencer(tmp_path)
    with pytest.raises(ValueError, match='precision.*options of an exported detector'):
        GroundingInferencer(checkpoint, precision='int8')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda text: text[: len(text) // 2], 'not valid JSON'),
        (lambda _: '[]', 'expected a JSON object, found list'),
        (lambda text: text.replace('"scored"', '"scores"'), "no 'scored'; it has"),
        (
            lambda text: json.dumps(json.loads(text) | dict(grid_size='4')),
            "'grid_size': expected a list, found str",
        ),
        (
            lambda text: text.replace('PILResize', 'os.system'),
            "the type 'os.system', .* Export again",
        ),
    ],
)
def test_a_broken_deployment_file(copied, change, message):
    path = copied / 'deployment.json'
    path.write_text(change(path.read_text()))
    for load in (ServedCLIPVG, served_config):
        with pytest.raises(ValueError, match=message) as error:
            load(str(copied))
        assert 'deployment.json' in str(error.value)


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        (dict(pipeline=[dict(type='LoadPanopticAnnotations')]), 'LoadPanoptic'),
        (dict(pipeline=[dict(type='LoadAnnotations', x='/etc/passwd')]), 'passwd'),
        (dict(data_preprocessor=dict(type='CLIPVG', x='../x')), '../x'),
    ],
)
def test_a_deployment_file_names_neither_other_types_nor_paths(copied, change, found):
    path = copied / 'deployment.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r'deployment\.json.*' + found):
        GroundingInferencer(copied)


def test_a_deployment_file_nested_without_end(copied):
    (copied / 'deployment.json').write_text('[' * 100_000)
    with pytest.raises(ValueError, match=r'deployment\.json'):
        GroundingInferencer(copied)


@pytest.mark.parametrize('backend', graphs.BACKENDS)
@pytest.mark.parametrize('location', ['../secret', '/etc/passwd', 'beside.bin'])
def test_a_graph_whose_numbers_are_elsewhere(tmp_path, backend, location):
    onnx = pytest.importorskip('onnx')
    (tmp_path / 'folder').mkdir()
    for name in ('secret', 'folder/beside.bin'):
        (tmp_path / name).write_bytes(bytes(16))
    tensor = onnx.TensorProto(name='w', dims=[4], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key='location', value=location)
    value = onnx.helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, [4])
    node = onnx.helper.make_node('Identity', ['w'], ['y'])
    graph = onnx.helper.make_graph([node], 'g', [], [value], [tensor])
    path = tmp_path / 'folder' / 'image.onnx'
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ValueError, match=rf'image\.onnx: .*{location}'):
        graphs.open_graph(path, backend, 'f32')


def test_graphs_of_another_export(copied, variant_folder):
    shutil.copy(variant_folder / 'grounding.onnx', copied)
    with pytest.raises(ValueError, match=r'grounding.onnx is not the file .*another'):
        ServedCLIPVG(str(copied))


def test_a_truncated_or_missing_graph(copied):
    path = copied / 'image.onnx'
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r'image.onnx .* truncated'):
        ServedCLIPVG(str(copied))
    path.unlink()
    with pytest.raises(FileNotFoundError, match='image.onnx: no such file'):
        ServedCLIPVG(str(copied))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(backend='tensorrt'), "backend='tensorrt'; expected one of"),
        (dict(precision='fp16'), "precision='fp16'; expected one of"),
        (dict(precision='int8'), r"has no int8 weights, only \['float'\]: export with"),
        (dict(backend='onnxruntime', precision='bf16'), "for backend='openvino' alone"),
    ],
)
def test_options_that_cannot_be_had(folder, options, message):
    with pytest.raises(ValueError, match=message):
        ServedCLIPVG(str(folder), **options)


def test_a_cpu_without_bfloat16(folder, monkeypatch):
    class Core:
        def get_property(self, *_):
            return ['FP32', 'INT8']

    monkeypatch.setattr(graphs, 'openvino_core', Core)
    with pytest.raises(ValueError, match='this CPU has no bfloat16'):
        ServedCLIPVG(str(folder), precision='bf16')


@pytest.mark.parametrize('backend', graphs.BACKENDS)
def test_a_backend_that_is_not_installed(folder, monkeypatch, backend):
    def missing(name):
        raise ImportError(f'No module named {name!r}')

    monkeypatch.setattr(graphs, 'import_module', missing)
    anew = graphs.openvino_core.__wrapped__
    monkeypatch.setattr(graphs, 'openvino_core', anew)
    with pytest.raises(ImportError, match=rf"{backend} is needed .*\[serving\]'"):
        GroundingInferencer(folder, backend=backend)


def test_an_exported_detector_does_not_train(folder):
    with pytest.raises(ValueError, match="mode='loss'"):
        ServedCLIPVG(str(folder))([], [], mode='loss')
