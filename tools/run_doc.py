"""Run the commands of a page of the docs, as a reader would.

    python tools/run_doc.py docs/tutorial_without_labels.md

All blocks marked as bash run in one shell, in order, and stop at the first failure.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path


def commands(text: str) -> str:
    """The bash blocks of a Markdown page, one after another."""
    return '\n'.join(re.findall(r'^```bash\n(.*?)^```', text, re.DOTALL | re.MULTILINE))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('page', type=Path, help='Markdown file whose commands are run')
    return parser.parse_args()


def main() -> None:
    """Run them."""
    script = commands(parse_args().page.read_text(encoding='utf-8'))
    # `python` means the one that runs this, activated or not.
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    done = subprocess.run(
        ['bash', '-euxo', 'pipefail', '-c', script],
        env=dict(os.environ, PATH=path),
        check=False,
    )
    sys.exit(done.returncode)


if __name__ == '__main__':
    main()
