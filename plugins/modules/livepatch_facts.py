# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Gather what live patches the processes of a host have in them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_facts
short_description: Gather which live patches the processes of a host have, read from the processes themselves
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Looks into the processes of the host and returns, as C(ansible_facts.livepatch), which patches are in them, which
    functions lead where, and whether every byte is as it must be now. No record of earlier tasks is used.
  - What a process says of itself proves nothing. Where the host knows the patch, because it was loaded here by root
    (M(cgl.livepatch.livepatch_load)) or is in the store (M(cgl.livepatch.livepatch_store)), the process's bytes are
    compared with what loading that patch into it would make, and C(proof) is V(store). Elsewhere C(proof) is
    V(claim); C(verified) then only means that the bytes are what the process says they must be.
  - Stops nobody and changes nothing.
extends_documentation_fragment:
  - cgl.livepatch.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: It changes nothing.
  idempotent:
    support: full
  platform:
    support: full
    platforms: linux
    details: 64-bit x86 only for now.
options:
  patch:
    description:
      - Ids of the patches to speak of, all by default.
      - What is named here and not active where its object runs stands in C(missing).
    type: list
    elements: str
    default: []
  scan:
    description:
      - V(patched) looks at processes that have a patch.
      - V(affected) also at those that map an object to which one of these patches is bound.
      - V(all) at every process.
    type: str
    choices:
      - patched
      - affected
      - all
    default: affected
  desired:
    description:
      - Compare with what the host's store wants (M(cgl.livepatch.livepatch_store)), too. Adds C(desired) and
        C(drift), and what is desired and not active to C(missing). All processes are looked at for that, and O(scan)
        is V(all).
    type: bool
    default: false
  objects:
    description:
      - Tell only of these objects (build-ids, or paths), of those to which a patch is bound that is here or desired,
        and of processes that map one of them or have a patch. V([]) adds no others. That keeps the facts of many hosts
        small.
      - By default, all objects of the processes that are told of. Drift is looked for in all of them in any case.
    type: list
    elements: str
  fail_on:
    description:
      - Kinds of drift that fail the task, after all was gathered. Needs O(desired=true).
      - V(missing), desired and not there; V(not_desired), there and not desired; V(not_active), desired, there and not
        active; V(modified), bytes changed by something else; V(disk_newer), the object on disk is another build than
        the one that runs; V(deleted), a process runs code that is on no disk any more.
    type: list
    elements: str
    choices:
      - missing
      - not_desired
      - not_active
      - modified
      - disk_newer
      - deleted
    default: []
  audit:
    description:
      - Read the log of what was done on this host, too, and follow its chain. Adds C(audit).
      - The log is V(/var/lib/cgl-livepatch/audit.log), which role P(cgl.livepatch.prepare#role) makes room for. Needs
        root.
    type: bool
    default: false
  audit_entries:
    description: How many of the last entries of the log to return.
    type: int
    default: 20
  audit_head:
    description:
      - The digest of an entry that must be in the log, as C(audit.head) or the journal (C(LIVEPATCH_LOG_DIGEST)) had it
        at some time. Where it is not, the end of the log was cut off, or all of it was written anew; C(audit.intact) is
        false.
    type: str
    default: ""
requirements:
  - python-ptrace
  - pyelftools
notes:
  - Needs root, or C(CAP_SYS_PTRACE) and C(CAP_DAC_OVERRIDE), to see the processes of other users.
seealso:
  - module: cgl.livepatch.livepatch_store
  - module: cgl.livepatch.livepatch_load
  - module: cgl.livepatch.livepatch_activate
"""

EXAMPLES = r"""
- name: See what is patched here
  cgl.livepatch.livepatch_facts:

- name: See about one fix
  cgl.livepatch.livepatch_facts:
    patch: fix-greeting

- name: Fail unless the fix is active, and verified, in every process that runs the broken code
  ansible.builtin.assert:
    that:
      - ansible_facts.livepatch.missing | length == 0
      - ansible_facts.livepatch.patches['fix-greeting'].verified

- name: Read what was done here
  cgl.livepatch.livepatch_facts:
    audit: true
    audit_head: "{{ livepatch_audit_heads[inventory_hostname] | default('') }}"

- name: Fail when the log was tampered with
  ansible.builtin.assert:
    that: ansible_facts.livepatch.audit.intact
    fail_msg: "{{ ansible_facts.livepatch.audit }}"

- name: Fail where a process lacks what the host should have
  cgl.livepatch.livepatch_facts:
    desired: true
    fail_on:
      - missing
      - not_active
      - modified

- name: See which processes run a certain build, whatever it is called
  cgl.livepatch.livepatch_facts:
    scan: all
    objects:
      - 347bda285b7b5c15b56b8fc63bc1668281ffed3c
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to ansible_facts.
  returned: always
  type: dict
  contains:
    livepatch:
      description: The live patches of this host.
      returned: always
      type: dict
      contains:
        schema:
          description: Version of this structure.
          type: int
          sample: 1
        scan:
          description: Which processes were looked at, see O(scan).
          type: str
          sample: affected
        patches:
          description: The patches found, by id, with how many processes have them and in how many they are active.
          type: dict
          sample:
            fix-greeting:
              version: "1"
              description: Greet everybody
              cves:
                - CVE-2026-0001
              object: /usr/sbin/greeter
              build_id: 347bda285b7b5c15b56b8fc63bc1668281ffed3c
              processes: 1
              active: 1
              verified: true
              proof: store
        processes:
          description: The processes looked at, each with its objects and its patches. C(verified) and C(proof) of a
            patch are explained above, and C(reasons) says what is not as it must be.
          type: list
          elements: dict
          sample:
            - pid: 1234
              start_time: 245396
              exe: /usr/sbin/greeter
              threads: 9
              objects:
                - path: /usr/sbin/greeter
                  build_id: 347bda285b7b5c15b56b8fc63bc1668281ffed3c
                  disk_build_id: 347bda285b7b5c15b56b8fc63bc1668281ffed3c
                  drift: none
              patches:
                - id: fix-greeting
                  version: "1"
                  state: active
                  verified: true
                  proof: store
                  reasons: []
                  functions:
                    - name: greet
                      address: "0x55d0c0a01190"
                      redirected_to: "0x55cfc0a00000"
                      redirected_by: fix-greeting
                  switch: byte
                  stop_us: 0
                  activated_at: 1795320000
                  sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
                  cves:
                    - CVE-2026-0001
              patchable: true
              reasons: []
        objects:
          description: With O(objects), the build-ids and paths of the objects that are told of. Of others, nothing is
            known.
          type: list
          elements: str
          sample:
            - /usr/sbin/greeter
            - 347bda285b7b5c15b56b8fc63bc1668281ffed3c
        missing:
          description: Where a patch that O(patch) names is not active although its object runs; pid 0 when it is
            nowhere.
          type: list
          elements: dict
          sample:
            - patch: fix-greeting
              pid: 1240
              exe: /usr/sbin/greeter
              state: loaded
        desired:
          description:
            - With O(desired=true), what the store wants, by patch id, with the processes that run the build it is for
              (C(vulnerable_build)), those that run another one from the same place (C(other_build)) and need none,
              whether it is C(obsolete) (no process and no disk has that build, as far as its place is known), and the
              programs it is held back from (C(held)) by the crash-loop guard.
            - C(switched_off) says why nothing is applied, and is empty otherwise. C(errors) names what is damaged.
            - C(signature_policy) is what the host does about signatures, C(signer) and C(key) who had signed a patch
              when it was stored.
          type: dict
          sample:
            switched_off: ""
            signature_policy: required
            errors: []
            patches:
              fix-greeting:
                version: "1"
                enabled: true
                signer: builder@example.org
                key: SHA256:dwq6l4D6Ut+rMCtv0Ax5s+1dJ3hOAc+vd7eNhbdHyh4
                obsolete: false
                vulnerable_build:
                  - 1234
                other_build: []
                held: {}
        drift:
          description: With O(desired=true), where memory, disk and what is desired differ.
          type: list
          elements: dict
          sample:
            - kind: missing
              pid: 1240
              exe: /usr/sbin/greeter
              patch: fix-greeting
              state: absent
              detail: ""
        audit:
          description:
            - With O(audit=true), the log of what was done. C(exists) is false where there is none, as on a host that
              role P(cgl.livepatch.prepare#role) did not make ready.
            - C(intact) says that there is a log, that no line was changed, taken out or put in since it was written,
              and that the one that O(audit_head) asks for is in it. C(breaks) says where the chain is broken; C(torn)
              counts lines that were cut off when the machine ended at that moment.
            - C(head) is the digest of the last line. Keep it elsewhere, to notice when lines are missing at the end.
          type: dict
          sample:
            path: /var/lib/cgl-livepatch/audit.log
            exists: true
            intact: true
            count: 1
            torn: 0
            breaks: []
            head: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
            head_found: true
            entries:
              - seq: 1
                previous: "0000000000000000000000000000000000000000000000000000000000000000"
                at: "2026-11-22T12:00:00Z"
                action: load
                outcome: done
                program: livepatch_load
                patch: fix-greeting
                version: "1"
                sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
                count: 1
                processes:
                  - pid: 1234
                    exe: /usr/sbin/greeter
                    before: absent
                    state: loaded
                    code: ""
                signature:
                  policy: required
                  verified: true
                  signer: builder@example.org
                  key: SHA256:dwq6l4D6Ut+rMCtv0Ax5s+1dJ3hOAc+vd7eNhbdHyh4
                who:
                  uid: 0
                  login_uid: 1000
                  sudo_user: admin
                  pid: 4321
        summary:
          description: Counts. C(unreadable) processes could not be looked at; C(claims) is in how many places a patch
            rests on what a process says alone.
          type: dict
          sample:
            processes: 1
            patched: 1
            patches: 1
            active: 1
            claims: 0
            unverified: 0
            missing: 0
            unreadable: 0
error:
  description: What drift failed the task, with code, message and remedy.
  returned: failure
  type: dict
  sample:
    code: drift_found
    message: "missing: patch fix-greeting in process 1240 (/usr/sbin/greeter)"
    remedy: Run 'livepatch-store apply' on the host.
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._engine.facts import gather
from ..module_utils._engine.narrow_facts import narrow
from ..module_utils._errors import LivepatchError
from ..module_utils._module.audit import log_facts
from ..module_utils._module.failure import fail
from ..module_utils._module.requirements import require_libraries, require_platform
from ..module_utils._module.results import warn_of_unreadable
from ..module_utils._patch.manifest import check_id
from ..module_utils._store.drift import KINDS, add_drift, sentence_of
from ..module_utils._store.known import KnownPatches
from ..module_utils._store.places import Places
from ..module_utils._store.store import Store


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "patch": {"type": "list", "elements": "str", "default": []},
            "scan": {"type": "str", "choices": ["patched", "affected", "all"], "default": "affected"},
            "desired": {"type": "bool", "default": False},
            "objects": {"type": "list", "elements": "str"},
            "audit": {"type": "bool", "default": False},
            "audit_entries": {"type": "int", "default": 20},
            "audit_head": {"type": "str", "default": ""},
            "fail_on": {"type": "list", "elements": "str", "choices": list(KINDS), "default": []},
        },
        supports_check_mode=True,
    )
    require_libraries(module)
    require_platform(module)
    desired, kinds = module.params["desired"], module.params["fail_on"]
    if kinds and not desired:
        module.fail_json(msg="fail_on needs desired: true")
    try:
        wanted = [check_id(name) for name in module.params["patch"]]
        facts = gather(wanted, "all" if desired else module.params["scan"], KnownPatches(Places()))
        if desired:
            add_drift(facts, Store(Places()), wanted)
        if module.params["objects"] is not None:
            narrow(facts, module.params["objects"])
        if module.params["audit"]:
            facts["audit"] = log_facts(Places(), module.params["audit_entries"], module.params["audit_head"])
    except LivepatchError as error:
        fail(module, error)
    except OSError as problem:
        module.fail_json(msg="the log of this host cannot be read: %s" % problem)
    warn_of_unreadable(module, facts["summary"]["unreadable"])
    bad = [row for row in facts.get("drift", []) if row["kind"] in kinds]
    if bad:
        error = LivepatchError("drift_found", "; ".join(sentence_of(row) for row in bad[:10]))
        fail(module, error, ansible_facts={"livepatch": facts})
    module.exit_json(changed=False, ansible_facts={"livepatch": facts})


if __name__ == "__main__":
    main()
