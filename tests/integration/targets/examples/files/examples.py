# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""examples.py MODULE FOLDER WORD=REPLACEMENT...: write each example of a module's documentation to FOLDER/MODULE-N.yml.

Prints how many there are. The replacements are paths and process ids, which are others on every machine; a word
that stands in no example is an error, so that examples and replacements stay together.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys


def main():
    module, folder, replacements = sys.argv[1], sys.argv[2], dict(word.split("=", 1) for word in sys.argv[3:])
    told = subprocess.run(["ansible-doc", "-t", "module", "-j", module], check=True, stdout=subprocess.PIPE).stdout
    text = json.loads(told)[module]["examples"]
    for word, replacement in replacements.items():
        if word not in text:
            sys.exit("no example of %s says %s" % (module, word))
        text = text.replace(word, replacement)
    examples = re.split(r"^(?=- name: )", text, flags=re.MULTILINE)[1:]
    name = module.rpartition(".")[2]
    for number, example in enumerate(examples, 1):
        with open(os.path.join(folder, "%s-%d.yml" % (name, number)), "w") as stream:
            stream.write(example)
    sys.stdout.write("%d\n" % len(examples))


if __name__ == "__main__":
    main()
