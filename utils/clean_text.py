"""Text that may be shown to strangers: without secrets and without the name of a home folder."""

import re
from pathlib import Path

HIDDEN = "***"
_WORDS = r"(?:token|passw(?:or)?d|secret|api[_-]?key|credential)"
_TOKENS = r"\b(?:hf|ghp|gho|ghs|github_pat|sk|glpat|xox[abp])[_-][A-Za-z0-9_-]{16,}"  # which tell by their prefix
_SECRETS = (  # what it looks like, what takes its place
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), HIDDEN),  # user:password@host
    (re.compile(_TOKENS), HIDDEN),
    (re.compile(rf"(?i)({_WORDS}['\"]?\s*[=:]\s*['\"]?)[^\s'\",;]+"), rf"\1{HIDDEN}"),  # NAME_TOKEN=...
    (re.compile(rf"(?i)(--[\w-]*{_WORDS}[\s=]+['\"]?)[^\s'\"]+"), rf"\1{HIDDEN}"),  # --api-key ...
)


def without_secrets(text: str) -> str:
    """Return `text` with *** for what looks like a password or a token: a guess by form, no proof that none is left."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def without_home(text: str, home: Path) -> str:
    """Return `text` with ~ for the path of a home folder; one that is a root of the file system stays."""
    if len(home.parts) < 2:
        return text
    return re.sub(rf"(?<![\w.~/-]){re.escape(str(home))}(?![\w.-])", "~", text)


def clean(text: str) -> str:
    """Return `text` without secrets and without the home folder of this user."""
    try:
        home = Path.home()
    except RuntimeError:  # a user without one
        return without_secrets(text)
    return without_secrets(without_home(text, home))
