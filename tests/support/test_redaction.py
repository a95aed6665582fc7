"""redact.py: credentials are masked everywhere, and nothing else is changed."""

from __future__ import annotations

import base64
import io
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.support import redaction

# Joined at run time, so that no scanner of repositories mistakes them for real secrets.
HEX = "0123456789abcdef0123456789abcdef"
ALNUM = "Ab1" * 12
KEY = base64.b64encode(bytes(range(64))).decode()
PEM = "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIEdata+/=\n-----END " + "RSA PRIVATE KEY-----"
PLANTED = {
    "hugging face": "hf_" + ALNUM[:34],
    "github": "ghp_" + ALNUM,
    "github app": "ghs_" + ALNUM,
    "github fine-grained": "github_pat_" + "11ABC_" + ALNUM,
    "gitlab": "glpat-" + ALNUM[:20],
    "openai": "sk-proj-" + ALNUM,
    "nvidia": "nvapi-" + ALNUM,
    "slack": "xoxb-" + "1234-" + ALNUM,
    "databricks": "dapi" + HEX,
    "npm": "npm_" + ALNUM,
    "pypi": "pypi-" + ALNUM,
    "google": "AIza" + ALNUM[:35],
    "aws id": "AKIA" + "IOSFODNN7EXAMPLE",
    "aws temporary id": "ASIA" + "IOSFODNN7EXAMPLE",
    "jwt": "eyJhbGciOi" + "JIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "encrypted web token": "eyJhbGciOi" + "JSU0EifQ." + ".".join([ALNUM] * 4),
    "neptune": "eyJhcGlf" + ALNUM * 2 + "==",
    "grafana": "glc_eyJv" + ALNUM * 2,
    "wandb": "wandb_v1_" + ALNUM,
    "kaggle": "KGAT_" + HEX,
    "langsmith": "lsv2_pt_" + HEX + "_0123456789",
    "xai": "xai-" + ALNUM * 2,
    "runpod": "rpa_" + ALNUM,
    "docker organization": "dckr_oat_" + ALNUM,
    "terraform": ALNUM[:14] + ".atlasv1." + ALNUM * 2,
    "aws session": "IQoJb3JpZ2lu" + ALNUM * 3,
    "azure search": ALNUM + "AzSe" + ALNUM[:6],
    "azure registry": ALNUM + "+ACR" + ALNUM[:6],
    "azure devops": ALNUM * 2 + "AZDO" + ALNUM[:4],
    "azure openai": ALNUM + ALNUM[:16] + "JQQJ99" + ALNUM[:26],
    "pgp key": PEM.replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK"),
    "azure application": "abc8Q~" + ALNUM[:34],
    "storage key": KEY,
    "private key": PEM,
}
# Text with the secret S in it.
AROUND = (
    "https://acct.blob.example/c?sv=2024&sig=S&se=2030",
    "https://acct.blob.example/c?sig=S",
    r"https://acct.blob.example/c?sv=1\u0026sig=S\u0026se=2",
    "https%3A%2F%2Facct%2Fc%3Fsv%3D1%26sig%3DS",
    "https://bucket.example/x?X-Goog-Signature=S&X-Goog-Date=1",
    "https://files.example/x?Policy=p&Signature=S&Key-Pair-Id=1",
    "machine api.wandb.ai\n  login user\n  password S\n",
    "https://bucket.example/x?X-Amz-Signature=S&X-Amz-Date=1",
    "https://fn.example/api?code=S",
    "https://maps.example/api?key=S",
    "https://user:S@host.example/x",
    "postgresql://user:S@db:5432/x",
    "https://hooks.slack.com/services/S",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=S;EndpointSuffix=core.example",
    "Endpoint=sb://x/;SharedAccessKeyName=Root;SharedAccessKey=S",
    "BlobEndpoint=https://x/;SharedAccessSignature=S",
    "Server=db;User=sa;Password=S;Encrypt=yes",
    "Server=db;Pwd=S",
    "Authorization: Bearer S",
    "authorization: Basic S",
    "x-api-key: S",
    "WANDB_API_KEY=S python train.py",
    "export HF_TOKEN=S",
    "PGPASSWORD=S psql",
    "python train.py --hub_token S --lr 1",
    "python train.py --wandb-api-key=S",
    "['train.py', '--password', 'S']",
    "{'hub_token': 'S', 'lr': 1}",
    '{"client_secret": "S", "lr": 1}',
    r"{\"client_secret\": \"S\"}",
    "client_secret = 'S'",
    "hub_token: S",
    "the token=S was refused",
)
# fmt: off
SECRET_NAMES = (
    "wandb.api_key", "hubToken", "hub_token", "HF_TOKEN", "WANDB_API_KEY", "PGPASSWORD",
    "clientSecret", "aws_secret_access_key", "AWS_ACCESS_KEY_ID", "azure_storage_account_key",
    "AZURE_STORAGE_CONNECTION_STRING", "connectionString", "sas_token", "sasToken", "auth.token",
    "github_pat", "sentry_dsn", "private_key", "SSH_KEY", "bearer", "cookie", "password",
    "db.passwd", "pwd", "access_token", "accesstoken", "credentials", "AZURE_CLIENT_SECRET",
    "client_assertion", "env/WANDB_KEY", "openai_key", "jwt", "authorization", "passphrase",
    "license_key", "ssh.private_key", "basic_auth", "subscriptionKey", "encryption-key",
    "passwords", "db.passwords", "api_keys", "apikeys", "primaryKey", "secondary_key",
    # Each word of the tables once, alone or joined to another word.
    "gcp_credential", "blob_sas", "app.secrets", "PGPASSWD", "clientsecret", "openaiapikey", "awsaccesskey",
    "secretkey", "sshprivatekey", "storageaccountkey", "hubauthtoken", "access_token_value", "proxy_auth",
    "access_signature", "conn_string", "connection_str", "conn_str", "access_keys", "account_keys",
    "secret_keys", "private_keys", "signing_key", "master_key", "shared_key", "service_key", "deploy_key",
    "azure_key", "comet_key", "neptune_key", "storage_key", "secret_key", "access_key", "account_key",
)
# Only as the name of a parameter: in a text these are words.
PARAMETER_NAMES = (
    "smtp.pass", "wandb.key", "x.key", "roboflow_key", "aws.session", "pin", "access", "private", "db.pass",
    "s3.access", "mapbox.key", "login.pin", "SMTP_PASS", "kaggleKey", "service/key",
    "slack.webhook", "webhook_url", "login.otp", "door.passcode", "smtp.pw", "db.creds",
)
# Hosts and programs whose key is a login key, and other meanings of "key" and "token" in a training.
SERVICES = (
    "anthropic aws clearml cohere databricks datadog docker elevenlabs firebase gcp gcs gemini github gitlab "
    "google groq hf huggingface kaggle mapbox minio mistral mlflow newrelic ngc nvidia pinecone pushover "
    "redis replicate resend s3 sendgrid sentry slack smtp stripe supabase swanlab telegram together twilio "
    "vault weights"
)
ENTRIES = (
    "action actions annotation attention batch cache cam camera cond config crop data dataset demo depth "
    "dict embedding embeddings env episode feature features field frame goal group hidden image images index "
    "input instruction item join label lang language lookup map mask metric model monitor name obs "
    "observations output past policy pose prompt proprio query reward rgb robot sample score sensor sort "
    "split state states step success table target task text time timestamp value video view"
)
VOCABULARY = (
    "bos eos pad unk cls sep mask image boi eoi start end special action state img video audio vision "
    "context register latent query readout proprio begin added extra additional prefix middle suffix stop "
    "task language class per max min num"
)
# fmt: on
# No name identifies these.
VALUES = (
    "x9Kf3LmQ7rTzV2bN8wYp4HsD",
    "a1B2c3D4e5F6g7H8i9J0k1L2m3N4",
    KEY,
    "SG." + ALNUM[:22] + "." + ALNUM,
    "sk_" + "live_" + ALNUM,
    "12345678:AA" + ALNUM[:33],
    "pk." + "eyJ" + ALNUM,
    "hvs." + ALNUM,
    "dckr_" + "pat_" + ALNUM,
    *("whsec_" + ALNUM, "rk_" + "test_" + ALNUM, "hvb." + ALNUM, "AGE-SECRET-" + "KEY-1" + ALNUM.upper()),
    *("ya29." + ALNUM, "dop_v1_" + HEX, "dor_v1_" + HEX, "r8_" + ALNUM, "gsk_" + ALNUM, "pcsk_" + ALNUM),
    *(f"shp{kind}_" + HEX for kind in ("at", "ca", "pa", "ss")),
    *("figd_" + ALNUM, "lin_api_" + ALNUM, "ATATT3x" + ALNUM, "tskey-" + ALNUM, "NRAK-" + ALNUM.upper()),
    *("pul-" + HEX, "xkeysib-" + ALNUM, "sntrys_" + ALNUM, "sntryu_" + ALNUM, "GR1348941" + ALNUM[:20]),
    *(f"gl{kind}-" + ALNUM for kind in ("rt", "dt", "ft", "soat", "cbt", "ptt", "imt", "agent", "oas")),
)
ORDINARY_VALUES = (
    "Isaac-Velocity-Flat-Unitree-Go2-Play-v0",
    "PandaPickCubeCartesianVisuomotorPolicyV2",
    HEX,
    HEX * 2,
    "2026-11-30T09:10:11Z",
    "/mnt/Data2/Runs/Exp17/checkpoints/model_1200.pt",
    "openai/clip-vit-base-patch32",
    "Qwen2.5-VL-7B-Instruct-GPTQ-Int4",
    "ResNet50_Weights.IMAGENET1K_V2",
    "0.1 0.25 0.5 1e-4 3E5 2.5e-05",
    "LeRobotDatasetV3AlohaSimTransferCubeHuman",
)
ORDINARY = {
    "tokenizer": "gpt2",
    "tokenizer_name_or_path": "/data/tokenizer",
    "num_tokens": 512,
    "max_new_tokens": 20,
    "eos_token": "</s>",
    "bos_token": "begin",
    "pad_token_id": 0,
    "image_token_index": 3,
    "num_image_token": 256,
    "loss_per_token": 0.25,
    "speech_token": "<|audio|>",
    "fim_token": "▁<PRE>",
    "keyboard": "qwerty",
    "monkey": "ape",
    "author": "me",
    "path": "/a/b",
    "patience": 5,
    "auto": "yes",
    "pattern": "x",
    "patch_size": 14,
    "passes": 3,
    "rgb_key": "image",
    "observation.key": "image",
    "render_pass": 2,
    "session_id": 3,
    "private_obs_dim": 4,
    "access_mode": "rw",
    "pinned": 1,
    "observation.keys": "a b",
    "key": "camera_0",
    "query_key_value": "fused",
    "input_signature": "batch",
    "compat": "1",
    "use_auth_token": True,
    "hub_token": None,
    "password": "",
    "sasrec.dim": 4,
    "encoder": "basic architecture of the transformer_v2",
    "dataset": "/data/hf_lerobot_dataset_pusht_image",
    "run": "task-franka-reach-2026-01-02-long-name",
    "sha": HEX,
    "uri": "http://mlflow.example:5000/#/experiments/1@x",
    "blob": "azure://account/container/path?x=1",
    "text": "the token, the secret and exit code=65",
    "hint": "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "config": "sigma=0.5 config=1 design: 2, eos_token=<eos>",
    "blob host": "https://account.blob.core.windows.net/c@v2 and abfss://a-long-container-name-17@account.x/p",
    "sections": "Attempted credentials:\n\tEnvironment: unavailable\nsecret:\n  name: x\npassword:\nlr: 1",
    "module": "keyboard:0, tokenizer: gpt2, num_tokens=5",
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("around", ["{}", "a {} b", "'{}'", "key={},x", "/x?{}#", "({})", "x:{}\n"])
def test_a_credential_of_known_shape_is_masked_anywhere(kind: str, around: str) -> None:
    masked = redaction.text(around.format(PLANTED[kind]))
    assert redaction.MASK in masked
    for part in PLANTED[kind].split("\n"):
        assert part[8:] not in masked


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("secret", ["planted1", "Pl+nt/ed==", "p%2Bl4nted~._-", "dXNlcjpwYXNz"])
def test_a_credential_is_masked_for_what_stands_around_it(around: str, secret: str) -> None:
    if "://user:" in around:
        secret = secret.replace("/", "%2F")
    masked = redaction.text(around.replace("S", secret) if around.count("S") == 1 else _put(around, secret))
    assert redaction.MASK in masked and secret not in masked


# The same for secrets that are recognised by their length, or that have more than one word.
AROUND_LONG = (
    "https%253A%252F%252Facct%252Fc%253Fsv%253D1%2526sig%253D§",
    "{'sv': ['2024'], 'sig': ['§']}",
    '[("sig", "§")]',
    "Authorization: token §",
    "Authorization: SharedKey account:§",
    "https://§@git.example/a.git",
    "https://§@o1.ingest.sentry.example/2",
    "https://x.webhook.office.com/webhookb2/§",
    "https://discord.com/api/webhooks/1/§",
    "password='correct horse §'",
    'password: "correct horse §"',
    "password => §",
    "password:\n  §\nlr: 1",
    "Password:\n§",
    "password:\r\n§\r\n",
    "password: |\n    correct horse §\n",
    'a:\n  password: >-\r\n      "correct horse §"',
    "passwords:\n  - §",
    r'{"password": "a\"b\\§"}',
    r"-----BEGIN PRIVATE KEY-----\\nMIIE\\n§\\n-----END PRIVATE KEY-----",
)


@pytest.mark.parametrize("around", AROUND_LONG)
def test_a_long_credential_is_masked_for_what_stands_around_it(around: str) -> None:
    secret = ALNUM[:24]
    masked = redaction.text(around.replace("§", secret))
    assert redaction.MASK in masked and secret not in masked
    assert redaction.text(masked) == masked
    if around.startswith('{"'):
        assert json.loads(masked) == {"password": redaction.MASK}


def _put(around: str, secret: str) -> str:
    """Put the secret where a single S is, not where a word has one."""
    marks = [
        at for at, char in enumerate(around)
        if char == "S" and not around[at - 1 : at].isalpha() and not around[at + 1 : at + 2].isalpha()
    ]  # fmt: skip
    (at,) = [at for at in marks if around[at - 1 : at] != "_" and around[at + 1 : at + 2] != "_"][-1:]
    return around[:at] + secret + around[at + 1 :]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_value_under_the_name_of_a_credential_is_masked(name: str) -> None:
    for found in ("planted", 12345, ["a"], {"a": 1}):
        if isinstance(found, int) and name.lower().endswith("token"):
            continue
        assert redaction.value(name, found) == redaction.MASK
        assert redaction.value(f"a.b.{name}", found) == redaction.MASK


@pytest.mark.parametrize("name", PARAMETER_NAMES)
def test_a_parameter_under_a_shorter_name_of_a_credential_is_masked(name: str) -> None:
    for found in ("planted", 12345, ["a"], {"a": 1}):
        assert redaction.value(name, found) == redaction.MASK
        assert redaction.value(f"a.b.{name}", found) == redaction.MASK
    assert redaction.value(name, True) is True


def test_the_key_of_a_host_is_masked_and_the_key_of_an_entry_is_not() -> None:
    shown = [name for name in SERVICES.split() if redaction.value(f"{name}_key", "planted") != redaction.MASK]
    assert shown == []
    hidden = [name for name in ENTRIES.split() if redaction.value(f"{name}.key", "planted") == redaction.MASK]
    assert hidden == []


def test_the_tokens_of_a_vocabulary_are_not_masked() -> None:
    hidden = [
        name for name in VOCABULARY.split() if redaction.value(f"{name}_token", "begin") == redaction.MASK
    ]
    assert hidden == []
    assert redaction.value("hub_token", "begin") == redaction.MASK


@pytest.mark.parametrize("found", VALUES)
def test_a_parameter_whose_value_is_a_credential_is_masked_under_any_name(found: str) -> None:
    for around in ("{}", "a {} b", "'{}'"):
        assert found not in str(redaction.value("note", around.format(found)))


def test_forty_digits_are_a_key_only_where_weights_and_biases_is_named() -> None:
    digits = HEX + HEX[:8]
    assert redaction.value("wandb.login", digits) == redaction.MASK
    assert redaction.value("wandb.git_commit", digits) == digits
    assert redaction.value("commit", digits) == digits
    assert digits not in redaction.text(f"wandb login --relogin {digits}")


@pytest.mark.parametrize("found", ORDINARY_VALUES)
def test_values_that_only_look_long_stay_as_they_are(found: str) -> None:
    assert redaction.value("note", found) == found


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_and_values_stay_as_they_are(name: str) -> None:
    found = ORDINARY[name]
    assert redaction.value(name, found) == found
    assert redaction.text(f"{name}={found}") == f"{name}={found}"
    assert redaction.text(str(found)) == str(found)


@given(
    found=st.dictionaries(st.text(max_size=12), st.text(max_size=40), max_size=4), add=st.sampled_from(AROUND)
)
@settings(max_examples=200)
def test_a_line_of_json_is_one_afterwards_with_the_same_shape(found: dict[str, str], add: str) -> None:
    found["around"] = add
    for separators in ((",", ":"), (", ", ": ")):
        masked = json.loads(redaction.text(json.dumps(found, separators=separators)))
        assert len(masked) == len(found) and all(isinstance(value, str) for value in masked.values())


@pytest.mark.parametrize("found", [{"a": f'the "{around}" failed'} for around in AROUND + AROUND_LONG])
def test_masking_what_is_masked_and_printed_changes_nothing_more(found: dict[str, str]) -> None:
    once = json.dumps({key: redaction.text(value) for key, value in found.items()}, separators=(",", ":"))
    assert json.loads(redaction.text(once))


@given(st.text(alphabet="S=:&;?@/.-_'\"\\ \nsigtokenhf_Bearer0A", max_size=80))
@settings(max_examples=200)
def test_masking_twice_is_masking_once(text: str) -> None:
    once = redaction.text(text)
    assert redaction.text(once) == once


UNITS = ("a.", "a-", "eyJ12345678-", "token=", "--a ", "a://", "Bearer ", "a:", '"a":"', PEM[:31], "\\")


@pytest.mark.parametrize("unit", UNITS)
def test_long_hostile_text_is_masked_in_one_pass(unit: str) -> None:
    # An algorithm with quadratic time would not finish here.
    redaction.text(unit * (1_000_000 // len(unit)))


def test_the_credentials_that_we_were_given_are_masked_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    redaction.learn(
        {
            "MLFLOW_TRACKING_USERNAME": "robot",
            "MLFLOW_TRACKING_PASSWORD": "correcthorse",
            "PROXY": "http://me:batterystaple@proxy.example:3128",
            "PWD": "/home/somebody",
            "AZURE_TOKEN_CREDENTIALS": "WorkloadIdentityCredential",
            "SHORT_TOKEN": "true",
            "ODD_SECRET": "a/b c+d/e=f",
        }
    )
    pair = base64.b64encode(b"robot:correcthorse").decode()
    for said in (
        "x correcthorse y",
        f"x {pair} y",
        "x batterystaple y",
        "x a/b c+d/e=f y",
        "x a%2Fb%20c%2Bd%2Fe%3Df y",
    ):
        assert redaction.text(said) == "x *** y"
    kept = "true in /home/somebody, by WorkloadIdentityCredential"
    assert redaction.text(kept) == kept


def test_every_form_of_what_we_were_given_is_masked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    # Each starts with the previous one. The longest must be masked first, or its end would be shown.
    words = {f"A{number}_SECRET": "correct-horse-battery-staple"[:number] for number in range(8, 29)}
    redaction.learn({**words, "PROXY": "http://me:p%40ss%2Fw0rd@proxy.example:3128", "B_SECRET": "seven77"})
    for said in (
        *words.values(),
        "p%40ss%2Fw0rd",
        "p@ss/w0rd",
        base64.b64encode(b"me:p@ss/w0rd").decode(),
    ):
        assert redaction.text(f"x {said} y") == "x *** y"
    # Shorter ones are words.
    assert redaction.text("x seven77 y") == "x seven77 y"


def test_a_text_is_masked_before_it_is_cut() -> None:
    # Too little is left of a truncated token or key to recognise it.
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghijklmnopqrstuv"
    for secret in (token, "ghp_0123456789abcdefghij", "AKIA0123456789ABCDEF"):
        cut = redaction.start("x" * 90 + " " + secret, 100)
        assert secret[:4] not in cut and cut == "x" * 90 + " ***", secret
    text = "x" * 90 + " sig=abcdefghijklmnop"
    assert redaction.start(text, 100) == "x" * 90 + " sig=***"
    assert len(redaction.start("y " * 1000, 100)) == 100


def test_what_a_library_logs_is_masked() -> None:
    stream = io.StringIO()
    log = logging.Logger("library")
    log.addHandler(logging.StreamHandler(stream))
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(redaction.MaskedRecord)
    try:
        try:
            raise ValueError("AccountKey=abcdefgh12345678==")
        except ValueError:
            log.exception("refused %s", "https://h/?sig=abcdefgh")
    finally:
        logging.setLogRecordFactory(before)
    assert "abcdefgh" not in stream.getvalue()
    assert "ValueError: AccountKey=***" in stream.getvalue()
