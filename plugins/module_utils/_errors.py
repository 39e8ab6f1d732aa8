# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every error a user can meet: its code, and the remedy that is offered when the place that raises it knows no better.

The codes are stable: playbooks compare them. docs/errors.md explains each one; a unit test holds the two together.
"""

from __future__ import annotations

REMEDIES: dict[str, str] = {
    # the patch and the object
    "build_id_mismatch": "Build the patch for the object that runs here: give livepatch_build this object as 'target'.",
    "object_modified": "Something else changed this code in memory. Find out what did (another patch, a "
    "tracer, a hook) "
    "and take it out, or restart the process.",
    "patch_corrupt": "Copy or build the patch file again.",
    "patch_unsupported": "Use the collection version that built the patch, or build the patch with this one.",
    "arch_mismatch": "Build the patch on, and for, the architecture of the process.",
    "symbol_not_found": "Check that the process has the library that defines the symbol, in the version the "
    "patch names.",
    "no_room_near_object": "The address space around the object is full; restart the process to patch it "
    "from the start.",
    "function_too_short": "Rebuild the object so that the function has room (-fpatchable-function-entry), "
    "or use another fix.",
    # the process
    "not_permitted": "Run the task with 'become: true' (root, or CAP_SYS_PTRACE in the process's user namespace).",
    "already_traced": "End the other tracer (a debugger, strace) or wait for it, then run the task again.",
    "process_gone": "Run the task again if the program was restarted; its new process is found by itself.",
    "function_busy": "Run the task again at a quieter moment, or give a longer 'timeout'.",
    "stop_budget_exceeded": "Run the task again at a quieter moment, or give a larger 'max_stop_ms' or a "
    "longer 'timeout'.",
    # the order of things
    "not_loaded": "Load the patch first (livepatch_load with state: present).",
    "still_active": "Deactivate the patch first (livepatch_activate with state: inactive).",
    "required_patch_missing": "Activate the required patch first.",
    "superseded": "Deactivate the patch that replaces it first.",
    "already_loaded": "Take the loaded version out first (livepatch_activate state: inactive, "
    "livepatch_load state: absent).",
    # hosts
    "turn_taken": "Let the other run end, then run this again. If you know that it is dead, run this again with "
    "livepatch_take_over=true.",
    "unhealthy": "Find out what is wrong with the service on this host, then run this again.",
    # after the fact
    "memory_mismatch": "The process was put back as it was. Report this with the details shown: it should not happen.",
    # the host
    "dependency_missing": "Install the missing software on the host that ran the task (role "
    "cgl.livepatch.prepare does).",
    "internal": "This is a fault of cgl.livepatch. The process runs on; report the details shown.",
    # what a host should have
    "store_corrupt": "Put the patch into the store again (livepatch_store), or take it out (state: absent).",
    "drift_found": "Run 'livepatch-store apply' on the host, or take out of the store, or out of the processes, what "
    "is not wanted.",
    # signatures
    "signature_missing": "Sign the patch file where it is built (livepatch_build with 'signing_key'), and keep "
    "NAME.lpatch.sig beside it.",
    "signature_invalid": "Get the patch file from its builder again, or install the builder's key.",
    "trust_unsafe": "Let root own the file, and only root write it (role cgl.livepatch.prepare does); find out who "
    "wrote there meanwhile.",
    # building
    "diff_failed": "Make the diff against this very source tree, or set 'strip' to the number of leading "
    "path parts to drop.",
    "build_failed": "Make the build command work by itself in a copy of the source tree; its last lines are shown.",
    "artifact_missing": "Give 'artifact' as the path, relative to the tree, of the file that the build command makes.",
    "cache_unusable": "Free some space there, or set CGL_LIVEPATCH_CACHE to a folder that can be written.",
    "signing_failed": "Give 'signing_key' as a private key without a passphrase that the task's user may read, or as a "
    "public key whose private half that user's ssh-agent has.",
    # building: refusals
    "not_in_object": "Nothing needs patching here: this object was not built from the code the diff changes.",
    "nothing_changed": "Nothing needs patching here: the diff makes no difference in this object.",
    "source_mismatch": "Use the exact source (with the distribution's patches) and build command that made "
    "the deployed object.",
    "compiler_mismatch": "Build with the compiler that made the deployed object.",
    "no_build_id": "Link the object with --build-id; a patch is bound to its object by it.",
    "layout_changed": "Running code holds data in the old layout: restart into the new version, or find a "
    "fix without it.",
    "data_changed": "Name the symbol in 'data_changes' if its new value is meant to be written into running processes.",
    "signature_changed": "Keep the old signature (add a new function beside it), or restart into the new version.",
    "constructor_changed": "It ran already when the process started: restart into the new version.",
    "entry_changed": "It never returns, so its new code would never be entered: restart into the new version.",
    "assembler_changed": "Restart into the new version: changes in assembler files cannot be proven safe.",
    "lto_unsupported": "Build the object without link-time optimisation.",
    "tls_unsupported": "Write the fix without that thread-local variable (keep the value in what each thread has "
    "already), or restart into the new version.",
    "symbol_ambiguous": "Rename one of the symbols of that name in the fix, or restart into the new version.",
    "patch_too_large": "This is an upgrade, not a fix: restart into the new version.",
    "construct_unsupported": "Restart into the new version, or write the fix without this construct.",
}


class LivepatchError(Exception):
    """One failure: a stable `code`, a `message` that names what failed and why, and the `remedy`."""

    def __init__(self, code: str, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = REMEDIES[code] if remedy is None else remedy

    def __reduce__(self) -> tuple[type[LivepatchError], tuple[str, str, str]]:
        """How one process hands it to another: its code, message and remedy, whatever its class was."""
        return LivepatchError, (self.code, self.message, self.remedy)

    def as_dict(self) -> dict[str, str]:
        """The error as the modules return it: {code, message, remedy}."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy}
