"""The names that a pickle may import and still be clean.

The list contains what cannot run code of the file's choosing, whatever arguments it gets: builders of
tensors, arrays and containers, and classes whose state is only stored. It lists what is allowed, not what is
forbidden. Forbidden names cannot be listed: any function that finds another one by name opens all of them
(picklescan#66), and each release of each library adds some.

Four kinds of names are missing although frameworks write them, because they do run code: functions that are
stored by value (cloudpickle, dill); ``functools.partial`` and similar, which call their arguments; loaders of
other files; and classes that open something when they are created.
"""

from __future__ import annotations


def _names(module: str, names: str) -> set[tuple[str, str]]:
    return {(module, name) for name in names.split()}


_BUILTINS = "set frozenset list dict tuple int float complex bool str bytes bytearray slice range object"
_TORCH_TYPES = (
    "float float16 float32 float64 double half bfloat16 uint8 uint16 uint32 uint64 int8 int16 int32 int64 "
    "long int short bool complex32 complex64 complex128 cfloat cdouble quint8 qint8 qint32 quint4x2 quint2x4 "
    "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2 "
    "uint1 uint2 uint3 uint4 uint5 uint6 uint7 int1 int2 int3 int4 int5 int6 int7 "
    "bits8 bits16 bits1x8 bits2x4 bits4x2 strided sparse_coo contiguous_format "
    "channels_last preserve_format per_tensor_affine per_channel_affine"
)
_STORAGES = (
    "ByteStorage CharStorage ShortStorage IntStorage LongStorage HalfStorage FloatStorage DoubleStorage "
    "BoolStorage BFloat16Storage ComplexFloatStorage ComplexDoubleStorage QInt8Storage QUInt8Storage "
    "QInt32Storage QUInt4x2Storage QUInt2x4Storage UntypedStorage TypedStorage"
)
_SMALL_TYPES = (
    "bfloat16 float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz float8_e5m2 "
    "float8_e5m2fnuz float8_e8m0fnu float6_e2m3fn float6_e3m2fn float4_e2m1fn int1 int2 int4 "
    "uint1 uint2 uint4"
)
_PLACES = (
    "Metadata TensorStorageMetadata BytesStorageMetadata ChunkStorageMetadata TensorProperties MetadataIndex "
    "StorageMeta"
)
_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
_NUMPY_TYPES = (
    "ndarray dtype bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc uintc intp uintp "
    "longlong ulonglong float16 float32 float64 float128 longdouble complex64 complex128 str_ bytes_ void "
    "datetime64 timedelta64 object_ number integer floating generic"
)
_SPACES = {
    "box": "Box",
    "discrete": "Discrete",
    "multi_discrete": "MultiDiscrete",
    "multi_binary": "MultiBinary",
    "dict": "Dict",
    "tuple": "Tuple",
    "text": "Text",
    "sequence": "Sequence",
    "space": "Space",
}
_POLICIES = {
    "common": "ActorCriticPolicy ActorCriticCnnPolicy MultiInputActorCriticPolicy",
    "a2c": "CnnPolicy MlpPolicy MultiInputPolicy",
    "ppo": "CnnPolicy MlpPolicy MultiInputPolicy",
    "dqn": "DQNPolicy CnnPolicy MlpPolicy MultiInputPolicy QNetwork",
    "sac": "SACPolicy CnnPolicy MlpPolicy MultiInputPolicy Actor",
    "td3": "TD3Policy CnnPolicy MlpPolicy MultiInputPolicy Actor",
    "ddpg": "CnnPolicy MlpPolicy MultiInputPolicy",
}
# sb3-contrib 2.9: the targets of the policies' short names (MlpPolicy, MlpLstmPolicy, …), and two buffers.
_CONTRIB = {
    "ars.policies": "ARSPolicy ARSLinearPolicy",
    "crossq.policies": "CrossQPolicy",
    "qrdqn.policies": "QRDQNPolicy CnnPolicy MultiInputPolicy",
    "tqc.policies": "TQCPolicy CnnPolicy MultiInputPolicy",
    "common.maskable.policies": "MaskableActorCriticPolicy MaskableActorCriticCnnPolicy "
    "MaskableMultiInputActorCriticPolicy",
    "common.maskable.buffers": "MaskableRolloutBuffer MaskableDictRolloutBuffer",
    "common.recurrent.policies": "RecurrentActorCriticPolicy RecurrentActorCriticCnnPolicy "
    "RecurrentMultiInputActorCriticPolicy",
    "common.recurrent.buffers": "RecurrentRolloutBuffer RecurrentDictRolloutBuffer",
}

ALLOWED: frozenset[tuple[str, str]] = frozenset(
    {
        *_names("builtins", _BUILTINS),
        *_names("__builtin__", _BUILTINS + " unicode long xrange"),
        *_names("copyreg", "_reconstructor"),
        *_names("copy_reg", "_reconstructor"),
        *_names("_codecs", "encode"),
        *_names("collections", "OrderedDict defaultdict deque Counter"),
        *_names("datetime", "datetime date time timedelta timezone"),
        *_names("decimal", "Decimal"),
        *_names("fractions", "Fraction"),
        *_names("uuid", "UUID SafeUUID"),
        *_names("argparse", "Namespace"),
        *_names("types", "SimpleNamespace"),
        # random.py: created without arguments, then given numbers. re/__init__.py: of a pattern and its
        # flags.
        *_names("random", "Random"),
        *_names("re", "_compile"),
        *_names("typing", "Any Dict List Tuple Union Optional"),
        *_names("pathlib", _PATHS),
        *_names("pathlib._local", _PATHS),
        # torch: torch/_utils.py and torch/_tensor.py rebuild tensors, parameters and their wrappers.
        *_names(
            "torch._utils",
            "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
            "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor _rebuild_nested_tensor "
            "_rebuild_meta_tensor_no_storage _rebuild_device_tensor_from_numpy "
            "_rebuild_device_tensor_from_cpu_tensor",
        ),
        *_names("torch._tensor", "_rebuild_from_type_v2"),
        *_names("torch.nn.parameter", "Parameter Buffer"),
        *_names("torch", "Size device Tensor dtype Generator " + _TORCH_TYPES + " " + _STORAGES),
        *_names("torch.storage", "UntypedStorage TypedStorage _load_from_bytes"),
        *_names("torch.serialization", "_get_layout"),
        # A string: torch.__version__, which trainers store in their checkpoints.
        *_names("torch.torch_version", "TorchVersion"),
        # numpy: arrays, scalars and random generators, under the names of numpy 1 and 2.
        *_names("numpy", _NUMPY_TYPES),
        *(
            (module, name)
            for core in ("numpy.core", "numpy._core")
            for module, names in (
                (f"{core}.multiarray", "_reconstruct scalar"),
                (f"{core}.numeric", "_frombuffer"),
            )
            for name in names.split()
        ),
        # Masked arrays (numpy/ma/core.py: MaskedArray.__reduce__), under the names of numpy 1 and 2.
        *_names("numpy.ma.core", "_mareconstruct MaskedArray"),
        *_names("numpy.ma", "MaskedArray"),
        # numpy 2's strings of any length, and the number formats of JAX.
        *_names("numpy.dtypes", "StringDType"),
        *_names("numpy._core._internal", "_convert_to_stringdtype_kwargs"),
        *_names("ml_dtypes", _SMALL_TYPES),
        # torch.distributed.checkpoint: dataclasses that say which tensor is where, and an enumeration.
        *_names("torch.distributed.checkpoint.metadata", _PLACES + " _MEM_FORMAT_ENCODING"),
        *_names("torch.distributed.checkpoint.filesystem", "_StorageInfo _StoragePrefix"),
        *_names("numpy.random._pickle", "__generator_ctor __bit_generator_ctor __randomstate_ctor"),
        *_names("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence SeedSequence"),
        *_names("numpy.random._mt19937", "MT19937"),
        *_names("numpy.random._pcg64", "PCG64 PCG64DXSM"),
        *_names("numpy.random._philox", "Philox"),
        *_names("numpy.random._sfc64", "SFC64"),
        # omegaconf: configurations in checkpoints of Lightning and diffusion_policy. Its classes only store
        # their state. An interpolation is resolved when it is read, by resolvers that the program registered,
        # not the file.
        *_names("omegaconf.dictconfig", "DictConfig"),
        *_names("omegaconf.listconfig", "ListConfig"),
        *_names("omegaconf.base", "ContainerMetadata Metadata SCMode UnionNode"),
        *_names(
            "omegaconf.nodes",
            "AnyNode StringNode IntegerNode FloatNode BooleanNode BytesNode PathNode EnumNode "
            "InterpolationResultNode",
        ),
        # dill finds a built-in type by its name. The machine checks which one.
        *_names("dill._dill", "_load_type"),
        *_names("dill.dill", "_load_type"),
        # Lightning stores its hyperparameters in its own dictionary class.
        *_names("pytorch_lightning.utilities.parsing", "AttributeDict"),
        *_names("lightning_fabric.utilities.data", "AttributeDict"),
        *_names("lightning.fabric.utilities.data", "AttributeDict"),
        # Stable-Baselines3: spaces, policies by reference, schedules and statistics.
        *(
            (f"{package}.spaces.{module}", name)
            for package in ("gymnasium", "gym")
            for module, name in _SPACES.items()
        ),
        *(
            (f"stable_baselines3.{package}.policies", name)
            for package, names in _POLICIES.items()
            for name in names.split()
        ),
        *((f"sb3_contrib.{module}", name) for module, names in _CONTRIB.items() for name in names.split()),
        *_names("stable_baselines3.common.utils", "FloatSchedule ConstantSchedule LinearSchedule"),
        *_names(
            "stable_baselines3.common.buffers",
            "RolloutBuffer DictRolloutBuffer ReplayBuffer DictReplayBuffer",
        ),
        *_names("stable_baselines3.her.her_replay_buffer", "HerReplayBuffer"),
        *_names("stable_baselines3.common.type_aliases", "TrainFreq TrainFrequencyUnit"),
        *_names("stable_baselines3.common.running_mean_std", "RunningMeanStd"),
        *_names("stable_baselines3.common.vec_env.vec_normalize", "VecNormalize"),
        *_names(
            "stable_baselines3.common.noise",
            "NormalActionNoise OrnsteinUhlenbeckActionNoise VectorizedActionNoise",
        ),
        *_names("stable_baselines3.common.torch_layers", "FlattenExtractor NatureCNN CombinedExtractor"),
        *(
            (f"torch.nn.modules.{module}", name)
            for module, names in (
                ("activation", "ReLU Tanh ELU LeakyReLU Sigmoid SiLU GELU Softplus SELU Mish"),
            )
            for name in names.split()
        ),
        *_names("torch.optim.adam", "Adam"),
        *_names("torch.optim.adamw", "AdamW"),
        *_names("torch.optim.rmsprop", "RMSprop"),
        *_names("torch.optim.sgd", "SGD"),
        *_names("stable_baselines3.common.sb2_compat.rmsprop_tf_like", "RMSpropTFLike"),
    }
)

# Only the state of these is stored: real files create them empty and then set their state. With arguments
# they call some of these (a policy calls its optimizer's class, a noise calls the copy function of its
# argument).
MADE_EMPTY = frozenset(
    (module, name)
    for module, name in ALLOWED
    if module.startswith(
        (
            "stable_baselines3.",
            "torch.nn.modules.",
            "torch.optim.",
            "torch.distributed.",
            "gym.",
            "gymnasium.",
            "random",
        )
    )
    and module != "stable_baselines3.common.type_aliases"
    and name != "_MEM_FORMAT_ENCODING"
)

_TORCH_REBUILDS = frozenset((module, name) for module, name in ALLOWED if module == "torch._utils")
_MASKED = frozenset({("numpy.ma", "MaskedArray"), ("numpy.ma.core", "MaskedArray")})
_BIT_GENERATORS = frozenset(_names("numpy.random._pickle", "__bit_generator_ctor"))

# These call one of their arguments: its position, and what it may be; None: any name on the list. The machine
# checks the arguments.
CALLS_ITS_ARGUMENT: dict[tuple[str, str], dict[int, frozenset[tuple[str, str]] | None]] = {
    ("torch._tensor", "_rebuild_from_type_v2"): {0: _TORCH_REBUILDS},
    ("copyreg", "_reconstructor"): {0: None, 1: None},
    ("copy_reg", "_reconstructor"): {0: None, 1: None},
    ("numpy.ma.core", "_mareconstruct"): {0: _MASKED, 1: frozenset({("numpy", "ndarray")})},
    ("numpy.random._pickle", "__generator_ctor"): {1: _BIT_GENERATORS},
    ("numpy.random._pickle", "__randomstate_ctor"): {1: _BIT_GENERATORS},
}
LOADS_BYTES = ("torch.storage", "_load_from_bytes")
ENCODES = ("_codecs", "encode")
MAKES_BYTES = frozenset(
    (module, name) for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")
)
# Like a list or a dictionary, an object of these contains what is put in.
CONTAINERS = frozenset(
    _names("collections", "OrderedDict defaultdict deque Counter")
    | {
        (module, name)
        for module in ("builtins", "__builtin__")
        for name in ["set", "frozenset", "list", "dict", "tuple"]
    }
)
# A few bytes that can represent any count of numbers.
RANGES = frozenset({("builtins", "range"), ("__builtin__", "range"), ("__builtin__", "xrange")})
LOADS_TYPE = frozenset(_names("dill._dill", "_load_type") | _names("dill.dill", "_load_type"))
# dill also uses such names for the types of code, functions and attribute getters.
HARMLESS_TYPES = frozenset(
    name for _, name in _names("", "dict list tuple set int float bool str bytes object")
)
# Returns its argument if that is an object. In this way, a class could be written to.
GIVES_BACK = frozenset((f"{core}.multiarray", "scalar") for core in ("numpy.core", "numpy._core"))
# These are checked where they are called. If they were passed on as values (an attribute that something
# calls, an argument that another function calls), they would be called unchecked.
ONLY_CALLED = frozenset({LOADS_BYTES, ENCODES, *LOADS_TYPE, *CALLS_ITS_ARGUMENT})
