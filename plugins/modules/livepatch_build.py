# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build a live patch from a source tree and a change."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_build
short_description: Build a live patch from a diff or a new source tree
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Builds a patch file for one deployed object (a program or a shared library) from the source that it was built from
    and a change, which is a diff or the tree of the new version. Runs on a build host; no running process is touched.
  - Runs the project's own build command in a copy of the tree and notes how each source is compiled. Compares the
    result with the deployed object, which may be stripped, byte for byte; a patch is only made when this source is
    the proven source of that object.
  - Compiles what the change reaches before and after it, compares function by function, and puts into the patch the
    functions that differ, with the new functions, data and strings that they use. Lines that only moved change nothing.
  - Refuses with a code, the place, the reason and a remedy what cannot be patched safely into a running process.
  - The built original is kept in a cache, so that the next patch for the same source does not build it again. The cache
    is V($XDG_CACHE_HOME/cgl-livepatch) or V(~/.cache/cgl-livepatch); the environment variable E(CGL_LIVEPATCH_CACHE)
    of the task moves it. It holds 10 GB, or as many MB as E(CGL_LIVEPATCH_CACHE_SIZE) says; what was not used for the
    longest time is taken away.
extends_documentation_fragment:
  - cgl.livepatch.attributes
  - ansible.builtin.files
attributes:
  check_mode:
    support: full
    details: Everything is built and compared, only the patch file is not written.
  diff_mode:
    support: full
    details: Shows the disassembly of each replaced function before and after the change.
  idempotent:
    support: full
    details: The same inputs give the same bytes.
  platform:
    support: full
    platforms: linux
    details: 64-bit x86 only for now.
options:
  name:
    description:
      - Id of the patch. Letters, digits, V(.), V(_) and V(-), beginning with a letter or digit.
      - With O(artifacts), a patch without a name of its own is called by this, V(-) and the file name of its artifact.
    type: str
    required: true
  version:
    description: Version of the patch.
    type: str
    default: "1"
  description:
    description: What the patch is for, in a sentence.
    type: str
    default: ""
  cves:
    description: The CVE ids that the patch fixes.
    type: list
    elements: str
    default: []
  requires:
    description: Ids of patches that must be active before this one.
    type: list
    elements: str
    default: []
  replaces:
    description: Ids of patches that this one takes the place of.
    type: list
    elements: str
    default: []
  source:
    description:
      - The original source tree, with the distribution's patches applied, not built. It stays untouched.
    type: path
    required: true
  diff:
    description: Diff files, applied one after the other without fuzz. Either this or O(new_source) is needed.
    type: list
    elements: path
  strip:
    description: How many leading parts of the paths in the diffs to drop, as C(patch -p) does.
    type: int
    default: 1
  new_source:
    description: The source tree of the new version, not built.
    type: path
  build_command:
    description:
      - Shell command that builds the project, run in a copy of the tree.
      - It has to call the compiler by its name (C(gcc), C(cc), C(clang), ...), not by an absolute path.
    type: str
    required: true
  configure_command:
    description: Shell command to run before O(build_command), in the same copy.
    type: str
    default: ""
  environment:
    description: Environment variables for the build.
    type: dict
    default: {}
  artifact:
    description:
      - The file that the build links, relative to the tree, not stripped. Either this or O(artifacts) is needed.
    type: str
  target:
    description: The deployed object that the patch is for, stripped or not. By default the artifact itself.
    type: path
  artifacts:
    description:
      - Several files that the build links, of which one change may reach more than one, a program and its library
        for example. A patch is made for each that it reaches, all from one build of the tree. Give every object that
        runs with what the change touches.
      - Where the new code of one calls what the patch of another changes, the first requires the second.
      - When one of them is refused, no patch is written.
    type: list
    elements: dict
    suboptions:
      artifact:
        description: As O(artifact).
        type: str
        required: true
      target:
        description: As O(target).
        type: path
      name:
        description: Id of the patch for this one.
        type: str
      requires:
        description: Ids of patches that must be active before this one, besides those of O(requires).
        type: list
        elements: str
        default: []
      replaces:
        description: Ids of patches that this one takes the place of, besides those of O(replaces).
        type: list
        elements: str
        default: []
  data_changes:
    description:
      - Names of variables whose changed initial value is meant to be written into running processes on activation.
        Any other changed variable is refused.
      - The variable must keep its size, and hold no addresses.
    type: list
    elements: str
    default: []
  consistency:
    description:
      - The least that activating this patch needs, see M(cgl.livepatch.livepatch_activate).
      - By default V(entry) for one function and V(atomic) for several. V(quiescent) is set by itself, whatever is
        asked, when a thread inside an old function must not meet a new one.
    type: str
    choices:
      - entry
      - atomic
      - quiescent
  signing_key:
    description:
      - Sign the patch with this SSH key, on the build host, and write the signature beside it (C(NAME.lpatch.sig)).
        Hosts that know the key take the patch; see the guide on trust.
      - The path of a private key without a passphrase that the task's user may read, or of a public key whose private
        half that user's C(ssh-agent) has (E(SSH_AUTH_SOCK) in the environment of the task).
      - A signature that is there, by this key and of this very file, is kept.
    type: path
  dest:
    description:
      - The patch file to write, or a directory in which C(NAME.lpatch) is written. With O(artifacts), a directory.
    type: path
    required: true
requirements:
  - pyelftools
  - binutils
  - diffutils
  - patch
  - the compiler that built the deployed object
  - ssh-keygen of OpenSSH 8.2 or newer, with O(signing_key)
seealso:
  - module: cgl.livepatch.livepatch_load
  - module: cgl.livepatch.livepatch_activate
"""

EXAMPLES = r"""
- name: Build a patch from a diff
  cgl.livepatch.livepatch_build:
    name: fix-greeting
    source: /usr/src/greeter
    diff:
      - /usr/src/fix-greeting.diff
    build_command: make
    artifact: greeter
    dest: /var/tmp/fix-greeting.lpatch

- name: Build a patch for the distribution's stripped program from its source package and a CVE fix
  cgl.livepatch.livepatch_build:
    name: cve-2026-25243
    cves:
      - CVE-2026-25243
    source: /usr/src/redis-7.0.15
    diff:
      - /usr/src/CVE-2026-25243.patch
    build_command: dpkg-buildpackage -b -d -uc -us
    environment:
      DEB_BUILD_OPTIONS: nocheck parallel=4
    artifact: src/redis-server
    target: /usr/bin/redis-check-rdb
    dest: /var/tmp/

- name: Build a patch from the tree of the new version, for a library
  cgl.livepatch.livepatch_build:
    name: libgreet-1.2.1
    source: /usr/src/libgreet-1.2.0
    new_source: /usr/src/libgreet-1.2.1
    configure_command: ./configure --prefix=/usr
    build_command: make
    artifact: .libs/libgreet.so.1.2.0
    target: /usr/lib/libgreet.so.1.2.0
    dest: /var/tmp/libgreet-1.2.1.lpatch

- name: Build patches for a program and its library from one diff, in place of those of the last fix
  cgl.livepatch.livepatch_build:
    name: fix-3
    source: /usr/src/hello
    diff:
      - /usr/src/hello-fix-2.diff
      - /usr/src/hello-fix-3.diff
    build_command: make
    artifacts:
      - artifact: hello
        target: /usr/bin/hello
        replaces: [fix-2-hello]
      - artifact: libhello.so.1
        target: /usr/lib/libhello.so.1
        replaces: [fix-2-libhello.so.1]
    dest: /var/patches/

- name: Build a patch and sign it with a key that the agent of this user has
  cgl.livepatch.livepatch_build:
    name: fix-greeting
    source: /usr/src/greeter
    diff:
      - /usr/src/fix-greeting.diff
    build_command: make
    artifact: greeter
    signing_key: /home/builder/.ssh/id_livepatch.pub
    dest: /var/tmp/fix-greeting.lpatch
  environment:
    SSH_AUTH_SOCK: /run/user/1000/ssh-agent

- name: See what a patch would hold, without writing it
  cgl.livepatch.livepatch_build:
    name: fix-greeting
    source: /usr/src/greeter
    diff:
      - /usr/src/fix-greeting.diff
    build_command: make
    artifact: greeter
    dest: /var/tmp/fix-greeting.lpatch
  check_mode: true
  diff: true
"""

RETURN = r"""
patch:
  description: The patch.
  returned: success, when O(artifact) is given
  type: dict
  contains: &patch
    path:
      description: The patch file.
      type: str
      sample: /var/tmp/fix-greeting.lpatch
    sha256:
      description: Digest of the patch file.
      type: str
      sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    signature:
      description: The signature, none without O(signing_key).
      type: dict
      contains:
        path:
          description: Its file.
          type: str
          sample: /var/tmp/fix-greeting.lpatch.sig
        key:
          description: Fingerprint of the key.
          type: str
          sample: SHA256:dwq6l4D6Ut+rMCtv0Ax5s+1dJ3hOAc+vd7eNhbdHyh4
    id:
      description: Id of the patch.
      type: str
      sample: fix-greeting
    version:
      description: Version of the patch.
      type: str
      sample: "1"
    build_id:
      description: Build-id of the object that the patch is for.
      type: str
      sample: 347bda285b7b5c15b56b8fc63bc1668281ffed3c
    object:
      description: File name of the artifact.
      type: str
      sample: greeter
    arch:
      description: Architecture of the object.
      type: str
      sample: x86_64
    description:
      description: What the patch is for.
      type: str
      sample: Names of more than 64 bytes are refused
    cves:
      description: The CVE ids that the patch fixes.
      type: list
      elements: str
      sample: []
    requires:
      description: Ids of patches that must be active before this one.
      type: list
      elements: str
      sample: []
    replaces:
      description: Ids of patches that this one takes the place of.
      type: list
      elements: str
      sample: []
    built:
      description: Who built it with what.
      type: dict
      sample:
        by: builder
        tool: cgl.livepatch 0.1.0
    consistency:
      description: The least that activating the patch needs.
      type: str
      sample: entry
    functions:
      description: The functions that the patch replaces.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the function.
          type: str
          sample: greet
        size_old:
          description: Its size in the object, bytes.
          type: int
          sample: 96
        size_new:
          description: Its size in the patch, bytes.
          type: int
          sample: 112
        calls:
          description: The object's functions that its new code calls.
          type: list
          elements: str
          sample:
            - check_length
        uses:
          description: The object's variables, tables and functions whose address its new code uses.
          type: list
          elements: str
          sample:
            - limit
        imports:
          description: What its new code takes from other objects of the process.
          type: list
          elements: str
          sample:
            - strlen
        brings:
          description: What its new code uses that only the patch has.
          type: list
          elements: str
          sample:
            - check_name
    data:
      description: The variables that the patch overwrites, see O(data_changes).
      type: list
      elements: dict
      contains:
        name:
          description: Name of the variable.
          type: str
          sample: limit
        old:
          description: Its bytes in the object, hexadecimal.
          type: str
          sample: "0a000000"
        new:
          description: Its bytes in the patch, hexadecimal.
          type: str
          sample: "14000000"
    new_symbols:
      description: Functions and variables that only the patch has.
      type: list
      elements: str
      sample:
        - check_name
    externals:
      description: Symbols that the patch takes from other objects of the process.
      type: list
      elements: str
      sample:
        - strlen
    warnings:
      description: What a reviewer of the patch wants to know.
      type: list
      elements: str
      sample: []
patches:
  description: All patches that were made; of O(artifacts), in their order.
  returned: success
  type: list
  elements: dict
  contains: *patch
unreached:
  description: Artifacts for which there is no patch, because the change does not reach them or changes nothing there.
  returned: success, when O(artifacts) is given
  type: list
  elements: dict
  sample:
    - artifact: greetctl
      code: not_in_object
      reason: no source of greetctl reads a file that the change touches (greet.c)
refusals:
  description: Everything that keeps the change from becoming a patch.
  returned: when the change is refused
  type: list
  elements: dict
  contains:
    code:
      description: What kind of refusal.
      type: str
      sample: layout_changed
    symbol:
      description: The function, variable or type.
      type: str
      sample: struct session
    file:
      description: The source file.
      type: str
      sample: session.c
    reason:
      description: Why it cannot be patched.
      type: str
      sample: struct session grows from 48 to 56 bytes, and handle_session uses it
    remedy:
      description: What can be done instead.
      type: str
      sample: "Running code holds data in the old layout: restart into the new version, or find a fix without it."
    artifact:
      description: Which of O(artifacts) it is about.
      type: str
      sample: ""
error:
  description: The first refusal, or the failure, with code, message and remedy.
  returned: failure
  type: dict
  sample:
    code: diff_failed
    message: "fix.diff does not apply: 1 out of 1 hunk FAILED"
    remedy: Make the diff against this very source tree, or set 'strip' to the number of leading path parts to drop.
"""

import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils._build.build import build
from ..module_utils._build.request import BuildRefused, BuildRequest, BuildResult, Listing
from ..module_utils._build.several import build_several, patch_name
from ..module_utils._errors import LivepatchError
from ..module_utils._module.failure import fail
from ..module_utils._module.requirements import ELFTOOLS_ERROR, require_platform
from ..module_utils._patch.manifest import check_id
from ..module_utils._patch.signature import MOST_BYTES, SUFFIX, fingerprint, sign, signed_by

_SAME = ("source", "build_command", "version", "description", "configure_command", "strip")
_LISTS = ("cves", "data_changes")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "default": "1"},
            "description": {"type": "str", "default": ""},
            "cves": {"type": "list", "elements": "str", "default": []},
            "requires": {"type": "list", "elements": "str", "default": []},
            "replaces": {"type": "list", "elements": "str", "default": []},
            "source": {"type": "path", "required": True},
            "diff": {"type": "list", "elements": "path"},
            "strip": {"type": "int", "default": 1},
            "new_source": {"type": "path"},
            "build_command": {"type": "str", "required": True},
            "configure_command": {"type": "str", "default": ""},
            "environment": {"type": "dict", "default": {}},
            "artifact": {"type": "str"},
            "target": {"type": "path"},
            "artifacts": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "artifact": {"type": "str", "required": True},
                    "target": {"type": "path"},
                    "name": {"type": "str"},
                    "requires": {"type": "list", "elements": "str", "default": []},
                    "replaces": {"type": "list", "elements": "str", "default": []},
                },
            },
            "data_changes": {"type": "list", "elements": "str", "default": []},
            "consistency": {"type": "str", "choices": ["entry", "atomic", "quiescent"]},
            "signing_key": {"type": "path", "no_log": False},
            "dest": {"type": "path", "required": True},
        },
        mutually_exclusive=[("diff", "new_source"), ("artifact", "artifacts"), ("target", "artifacts")],
        required_one_of=[("diff", "new_source"), ("artifact", "artifacts")],
        add_file_common_args=True,
        supports_check_mode=True,
    )
    if ELFTOOLS_ERROR:
        missing = missing_required_lib("pyelftools")
        fail(module, LivepatchError("dependency_missing", missing), exception=ELFTOOLS_ERROR)
    require_platform(module)
    several = module.params["artifacts"] is not None
    unreached = []
    try:
        requests = _requests(module)
        if several:
            results, unreached = build_several(requests, module.debug)
        else:
            results = [build(requests[0], module.debug)]
    except BuildRefused as error:
        fail(module, error, refusals=[refusal.as_dict() for refusal in error.refusals])
    except LivepatchError as error:
        fail(module, error)
    places = [_place(module, result) for result in results]
    try:
        signatures = [_signature(module, result.content, dest) for result, dest in zip(results, places)]
    except LivepatchError as error:
        fail(module, error)
    changed, patches, diff = False, [], []
    for result, dest, signed in zip(results, places, signatures):
        name = result.patch.manifest.id
        for warning in result.warnings:
            module.warn("%s: %s" % (name, warning))
        written = _write(module, dest, result.content)
        if signed:
            changed = _write(module, dest + SUFFIX, signed[0]) or changed
        elif written and os.path.exists(dest + SUFFIX):
            module.warn("%s: %s%s is no signature of the patch as it is now." % (name, dest, SUFFIX))
        changed = changed or written
        told = {"path": dest + SUFFIX, "key": signed[1]} if signed else None
        patches.append(dict(result.summary, path=dest, signature=told))
        diff += [_shown(listing) for listing in result.listings if written]
    answer = {"changed": changed, "patches": patches}
    if several:
        answer["unreached"] = [refusal.as_dict() for refusal in unreached]
    else:
        answer["patch"] = patches[0]
    if module._diff and diff:
        answer["diff"] = diff
    module.exit_json(**answer)


def _place(module: AnsibleModule, result: BuildResult) -> str:
    """The file of one patch."""
    dest: str = module.params["dest"]
    return os.path.join(dest, result.patch.manifest.id + ".lpatch") if os.path.isdir(dest) else dest


def _signature(module: AnsibleModule, content: bytes, dest: str) -> tuple[bytes, str] | None:
    """The signature of a patch and the fingerprint of its key; the one that is there, where that is as good."""
    key = module.params["signing_key"]
    if not key:
        return None
    wanted = fingerprint(key)
    try:
        with open(dest + SUFFIX, "rb") as stream:
            there = stream.read(MOST_BYTES)
    except OSError:
        there = b""
    return (there, wanted) if there and signed_by(content, there) == wanted else sign(content, key)


def _shown(listing: Listing) -> dict[str, str]:
    """A listing as Ansible shows differences."""
    what = "%s of %s" % (listing.name, listing.file) if listing.file else listing.name
    return {
        "before_header": "%s (object)" % what,
        "after_header": "%s (patch)" % what,
        "before": listing.before,
        "after": listing.after,
    }


def _requests(module: AnsibleModule) -> list[BuildRequest]:
    """The task's options as the builder takes them, once for each artifact."""
    given = module.params
    rows = given["artifacts"]
    if rows is None:
        rows = [{"artifact": given["artifact"], "target": given["target"], "name": given["name"]}]
    elif not rows:
        module.fail_json(msg="artifacts: there is none in the list")
    elif not os.path.isdir(given["dest"]):
        module.fail_json(msg="dest: with artifacts it must be a directory, and %s is none" % given["dest"])
    for option in ("source", "new_source"):
        if given[option] and not os.path.exists(given[option]):
            module.fail_json(msg="%s: there is no %s" % (option, given[option]))
    requests = []
    for row in rows:
        name = row["name"] or patch_name(given["name"], row["artifact"])
        requires = [*given["requires"], *row.get("requires", [])]
        replaces = [*given["replaces"], *row.get("replaces", [])]
        for patch_id in (given["name"], name, *requires, *replaces):
            check_id(patch_id)
        if row["target"] and not os.path.exists(row["target"]):
            module.fail_json(msg="target: there is no %s" % row["target"])
        requests.append(
            BuildRequest(
                name=name,
                artifact=row["artifact"],
                target=row["target"] or "",
                requires=tuple(requires),
                replaces=tuple(replaces),
                **{option: given[option] for option in _SAME},
                **{option: tuple(given[option]) for option in _LISTS},
                diff=tuple(given["diff"] or ()),
                new_source=given["new_source"] or "",
                environment={key: str(value) for key, value in given["environment"].items()},
                consistency=given["consistency"] or "",
                want_listings=module._diff,
            )
        )
    return requests


def _write(module: AnsibleModule, dest: str, content: bytes) -> bool:
    """Put a file in place, whole or not at all; whether anything changed, or would in check mode."""
    try:
        with open(dest, "rb") as stream:
            changed = stream.read() != content
    except OSError:
        changed = True
    if changed and not module.check_mode:
        fresh = os.path.join(module.tmpdir, "new")
        with open(fresh, "wb") as stream:
            stream.write(content)
        module.atomic_move(fresh, dest)
    if os.path.exists(dest):
        arguments = module.load_file_common_arguments(module.params, path=dest)
        changed = module.set_fs_attributes_if_different(arguments, changed)
    return changed


if __name__ == "__main__":
    main()
