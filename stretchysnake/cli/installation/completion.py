"""`stretchysnake completion`: what a shell needs to complete verbs and options."""

import contextlib
import io
import re

from stretchysnake.cli.verbs import VERBS, verb_module

EXAMPLES = (
    'eval "$(stretchysnake completion)"                       # bash, this shell; into ~/.bashrc for all\n'
    '  autoload -U bashcompinit && bashcompinit && eval "$(stretchysnake completion)"   # zsh'
)

SCRIPT = """_stretchysnake() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}} options=
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
        return
    fi
    case $verb in
{cases}
    esac
    case $word in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -W "${{options//--*/}}" -- "$word")) ;;
    esac
}}
complete -o default -o filenames -F _stretchysnake stretchysnake
"""


def run(argv: list[str]) -> int:
    if argv in (["-h"], ["--help"]):
        print(
            f"A script for bash (and zsh) that completes verbs and options.\n\nexample:\n  {EXAMPLES}"
        )
        raise SystemExit(0)
    if argv:
        raise ValueError(f"completion ({' '.join(argv)}) takes no arguments")
    verbs = sorted(VERBS)
    cases = [f'    {verb}) options="{" ".join(options_of(verb))}" ;;' for verb in verbs]
    print(SCRIPT.format(verbs=" ".join(verbs), cases="\n".join(cases)), end="")
    return 0


def options_of(verb: str) -> list[str]:
    """The options that `stretchysnake VERB --help` names, its flags, and its actions with theirs."""
    module = verb_module(verb)
    actions = getattr(module, "ACTIONS", ())
    found = dict.fromkeys([*actions, *getattr(module, "FLAGS", ())])
    for action in actions or [None]:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            module.run([*([action] if action else []), "--help"])
        options = text.getvalue().partition("options:")[2] or "--help"
        found |= dict.fromkeys(re.findall(r"^ *(?:-\w, )?(--[\w.-]+)", options, re.M))
    return list(found)
