"""Reading assistants from a TOML file and from an app: each fault names the file, the line and the cure."""

import re
from pathlib import Path

import pytest

from latchkey.app import App
from latchkey.application.turns.prompts import PromptTemplate
from latchkey.bootstrap.assistant_definitions import AssistantsError, read_assistants
from latchkey.bootstrap.registry import BUILT_IN, Registry
from latchkey.config import Settings
from latchkey.domain.assistant import CHAT_TOOLS, Assistant

REGISTRY = Registry.of(*BUILT_IN)


def settings_of(file: Path | None, **variables: str) -> Settings:
    paths = {} if file is None else {"LATCHKEY_ASSISTANTS": str(file)}
    return Settings.read({**paths, **variables})


def read(folder: Path, text: str, *app: Assistant, **variables: str) -> dict[str, Assistant]:
    file = folder / "assistants.toml"
    file.write_text(text)
    registry = Registry.of(*BUILT_IN, App(name="team", assistants=app))
    return {each.name: each for each in read_assistants(settings_of(file, **variables), registry)}


def test_without_file_and_app_there_are_no_declared_assistants() -> None:
    assert read_assistants(settings_of(None), REGISTRY) == []


def test_every_key_of_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "shop.md").write_text("Sell bicycles to {context.name}.\n")
    text = """
        [assistant.plain]

        [assistant.shop]
        title = "Shop 🚲"
        instructions_file = "shop.md"
        agent = "openai"
        model = "gpt-5"
        models = ["gpt-5", "gpt-5-mini"]
        tools = ["list_tasks", "get_artifact"]
        approve = []
        temperature = 1
        reasoning_effort = "low"
        max_output_tokens = 500
        max_steps = 3
        history_turns = 5
    """

    assert read(tmp_path, text, OPENAI_API_KEY="sk") == {
        "plain": Assistant(name="plain"),
        "shop": Assistant(
            name="shop",
            title="Shop 🚲",
            instructions="Sell bicycles to {context.name}.\n",
            agent="openai",
            model="gpt-5",
            models=("gpt-5", "gpt-5-mini"),
            tools=("list_tasks", "get_artifact"),
            temperature=1.0,
            reasoning_effort="low",
            max_output_tokens=500,
            max_steps=3,
            history_turns=5,
        ),
    }
    assert Assistant(name="plain").tools == CHAT_TOOLS


def test_assistants_of_file_and_app_are_merged(tmp_path: Path) -> None:
    assert read(tmp_path, "[assistant.one]", Assistant(name="two")).keys() == {"one", "two"}


FAULTS: dict[str, tuple[str, int, str]] = {
    "syntax": ("[assistant.a]\ntitle = \n", 2, "assistants.toml"),
    "syntax at the end": ('[assistant.a]\ntitle = "x', 2, "assistants.toml"),
    "duplicate table": ("[assistant.a]\n\n[assistant.a]\n", 3, "twice"),
    "duplicate key": ("[assistant.a]\ntitle = 'x'\ntitle = 'y'\n", 3, "Cannot overwrite a value"),
    "unknown table": ("# shops\n[asistant.a]\n", 2, "did you mean [assistant.asistant]?"),
    "assistants as a list": ("\nassistant = []\n", 2, "must be a table [assistant.NAME]"),
    "assistant as text": ("[assistant]\na = 'x'\n", 2, "must be a table [assistant.a]"),
    "name": ("[assistant.'A b']\n", 1, "must be 1 to 64 of `a-z0-9_-`"),
    "unknown key": ("[assistant.a]\n# warm\ntemprature = 1\n", 3, "there is no such key; did you mean temperature?"),
    "very unknown key": ("[assistant.a]\nx = 1\n", 2, "there is no such key; there are agent, approve, history_turns"),
    "wrong type": ("[assistant.a]\ntitle = 5\n", 2, "title: must be a text of 1 to 200 characters"),
    "text for a list": ("[assistant.a]\ntools = 'add_task'\n", 2, "must be a list of names of tools"),
    "a boolean for a number": ("[assistant.a]\nmax_steps = true\n", 2, "must be a whole number from 1 to 1000"),
    "temperature": ("[assistant.a]\ntemperature = 2.1\n", 2, "must be a number from 0 to 2"),
    "not a number": ("[assistant.a]\ntemperature = nan\n", 2, "must be a number from 0 to 2"),
    "effort": ("[assistant.a]\nreasoning_effort = 'huge'\n", 2, "must be one of `none`, `minimal`"),
    "negative": ("[assistant.a]\nhistory_turns = -1\n", 2, "must be a whole number from 1 to 1000"),
    "blank instructions": ("[assistant.a]\ninstructions = ' '\n", 2, "must be a text that is not blank"),
    "model with a space": ("[assistant.a]\nmodels = [\n 'a',\n 'b c',\n]\n", 2, "must be a list of names of models"),
    "unknown tool": ("[assistant.a]\n\ntools = [\n 'add_tusk'\n]\n", 3, "no tool 'add_tusk'; did you mean add_task?"),
    "unknown tool to approve": ("[assistant.a]\napprove = ['x']\n", 2, "there is no tool 'x'; there are add_task"),
    "unknown agent": ("[assistant.a]\nagent = 'opnai'\n", 2, "there is no agent 'opnai'; did you mean openai?"),
    "agent without key": ("[assistant.a]\nagent = 'openai'\n", 2, "OPENAI_API_KEY: must be set for the agent `openai`"),
    "rehearsal": ("[assistant.a]\nagent = 'rehearsal'\n", 2, "must not be `rehearsal` unless"),
    "no such file": ("[assistant.a]\ninstructions_file = 'x.md'\n", 2, "x.md, a readable UTF-8 text that is not blank"),
    "both instructions": (
        "[assistant.a]\ninstructions = 'x'\ninstructions_file = 'x.md'\n",
        3,
        "must not be set together with `instructions`; keep one",
    ),
    "placeholder": ("[assistant.a]\ninstructions = 'Hi {user}'\n", 2, "unknown placeholder `{user}`"),
    "placeholder in a long text": (
        '[assistant.a]\ninstructions = """\nBe kind.\nHi {claims}\n"""\n',
        4,
        "unknown placeholder `{claims}`",
    ),
    "brace": ("[assistant.a]\ninstructions = '''Write {'''\n", 2, "a single `{`: write `{{` for a brace"),
    "second assistant": ("[assistant.a]\n[assistant.b]\ntitle = ''\n", 3, "assistant.b.title"),
}


@pytest.mark.parametrize(("text", "line", "cure"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_of_a_file_names_line_and_cure(tmp_path: Path, text: str, line: int, cure: str) -> None:
    with pytest.raises(AssistantsError, match="The assistants cannot be used:") as refused:
        read(tmp_path, text)

    (fault,) = refused.value.faults
    assert fault.startswith(f"{tmp_path}/assistants.toml:{line}: ")
    assert cure in fault


def test_all_faults_of_a_file_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(AssistantsError) as refused:
        read(tmp_path, "[assistant.a]\ntitle = 1\ncolour = 1\n[assistant.b]\ntools = ['x']\n")

    assert [fault.split(": ")[0].rpartition(":")[2] for fault in refused.value.faults] == ["2", "3", "5"]


def test_fault_of_an_instructions_file_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text('Answer as JSON:\n\n{"a": 1}\n')
    with pytest.raises(AssistantsError) as refused:
        read(tmp_path, "[assistant.a]\ninstructions_file = 'a.md'\n")

    assert refused.value.faults[0].startswith(f"{tmp_path}/a.md:3: unknown placeholder")


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff"])
def test_instructions_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.md").write_bytes(content)
    with pytest.raises(AssistantsError, match=r"toml:2: assistant\.a\.instructions_file: must be .*a\.md"):
        read(tmp_path, "[assistant.a]\ninstructions_file = 'a.md'\n")


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssistantsError, match=r"none\.toml:1: must be a readable UTF-8 text file"):
        read_assistants(settings_of(tmp_path / "none.toml"), REGISTRY)


def test_duplicate_name_of_file_and_app_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssistantsError, match=r"toml:2: assistant\.a: there is another assistant of this name"):
        read(tmp_path, "\n[assistant.a]\n", Assistant(name="a"))


def test_app_with_invalid_assistant_is_refused(tmp_path: Path) -> None:
    faulty = Assistant(name="a", temperature=9, tools=("add_tusk",))
    with pytest.raises(AssistantsError, match=r"assistant\.a\.temperature: must be a number from 0 to 2"):
        read(tmp_path, "", faulty)


def test_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs/assistants.md"
    (example,) = re.findall(r"^```toml\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assistants = read(tmp_path, example)
    instructions = assistants["shop"].instructions or ""
    placeholders = PromptTemplate.parse(instructions)

    assert assistants.keys() == {"shop", "default"}
    assert (placeholders.claim_names, placeholders.context_names) == (frozenset({"name", "plan"}), frozenset({"page"}))


def test_documentation_lists_every_key() -> None:
    text = (Path(__file__).parents[2] / "docs/assistants.md").read_text("utf-8")

    assert [name for name in Assistant.__struct_fields__ if name != "name" and f"`{name}`" not in text] == []
