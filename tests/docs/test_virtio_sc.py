#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""docs/virtio-sc.md against the headers: structures, constants and numbers are the same in both.

Each "struct NAME { ... }" of the document is made into C beside the header's, and the compiler compares size, offset and size of
each field. A field of the header that the document does not have, or the other way round, is an error. Every structure that
wire.h pins must be in the document, and pinned with all its fields.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HEADERS = ("channel.h", "control.h", "ops.h", "attach.h", "virtio_sc.h")
TYPES = {"u8": "uint8_t", "le16": "uint16_t", "le32": "uint32_t", "le64": "uint64_t", "char": "char"}


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as f:
        return f.read()


def no_comments(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def structs(text):
    """{name: [(type, field, array)]} of C text."""
    found = {}
    for name, body in re.findall(r"^struct (\w+) \{ *\n(.*?)^\};", no_comments(text), re.S | re.M):
        fields = re.findall(r"([\w ]+?)\s+(\w+)\s*(\[[^]]*\])?;", body)
        found[name] = [(re.sub(r"\s+", " ", kind.strip()), field, array) for kind, field, array in fields]
    return found


class Document(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.text = read("docs/virtio-sc.md")
        cls.doc = structs("\n".join(re.findall(r"```c\n(.*?)```", cls.text, re.S)))
        cls.headers = {h: read("include/vhost-sc/" + h) for h in HEADERS}
        cls.code = structs("\n".join(cls.headers.values()))
        cls.wire = read("include/vhost-sc/wire.h")

    def test_structures(self):
        """All that crosses a boundary is in the document; what only this guest's driver has (sc_dev_*) is not."""
        pinned = {n for n in re.findall(r"^SC_WIRE_SIZE\((\w+),", self.wire, re.M) if not n.startswith("sc_dev_")}
        self.assertGreater(len(pinned), 25)
        self.assertEqual(pinned - set(self.doc), set())
        self.assertEqual(set(self.doc) - set(self.code), set())
        lines = ["#include <stdint.h>"] + ["#include <vhost-sc/%s>" % h for h in HEADERS]
        for name, fields in self.doc.items():
            def padding(f):
                return f.startswith("pad")
            self.assertEqual([f for _, f, _ in fields if not padding(f)], [f for _, f, _ in self.code[name] if not padding(f)], name)
            lines.append("struct doc_%s {" % name)
            for kind, field, array in fields:
                lines.append("%s %s%s;" % (TYPES.get(kind, kind), field, array))
            lines.append("};\n_Static_assert(sizeof(struct doc_%s) == sizeof(struct %s), \"size of %s\");" % (name, name, name))
            for _, field, array in fields:
                if not padding(field):
                    where = "_Static_assert(offsetof(struct doc_%s, %s) == offsetof(struct %s, %s)" % (name, field, name, field)
                    size = "" if array == "[]" else " && sizeof(((struct doc_%s *)0)->%s) == sizeof(((struct %s *)0)->%s)" % (
                        name, field, name, field)
                    lines.append(where + size + ", \"%s.%s\");" % (name, field))
        with tempfile.TemporaryDirectory() as work:
            path = os.path.join(work, "doc.c")
            with open(path, "w", encoding="ascii", errors="replace") as f:
                f.write("\n".join(lines) + "\n")
            done = subprocess.run(["gcc", "-std=gnu17", "-fsyntax-only", "-I" + os.path.join(TOP, "include"), path], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_pinned_fields(self):
        """wire.h has all fields of the structures that it has."""
        for name in re.findall(r"^SC_WIRE_SIZE\((\w+),", self.wire, re.M):
            fields = re.findall(r"^SC_WIRE_AT\(%s, (\w+), \d+\)" % name, self.wire, re.M)
            self.assertEqual(fields, [f for _, f, _ in self.code[name] if not f.startswith("pad")], name)

    def numbered(self, heading):
        """The rows "| number | `NAME` |" of the tables of one section."""
        section = self.text.split(heading)[1].split("\n## ")[0]
        return {name: int(number) for number, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", section, re.M)}

    def enumerated(self, header, prefix):
        """{name without prefix: number} of the header's enumerations."""
        return {name: int(number) for name, number in re.findall(r"\b%s(\w+)\s*=\s*(\d+)," % prefix, no_comments(self.headers[header]))}

    def same_numbers(self, heading, known, least):
        """The section's numbers are the header's; at least so many are there."""
        told = self.numbered(heading)
        self.assertGreaterEqual(len(told), least)
        self.assertEqual({name: known.get(name) for name in told}, told)

    def test_messages(self):
        self.same_numbers("## 2. Control messages", self.enumerated("control.h", "SC_MSG_"), 16)

    def test_operations(self):
        self.same_numbers("## 4. Operations", self.enumerated("ops.h", "SC_OP_"), 40)

    def test_attach(self):
        types = no_comments(self.headers["attach.h"]).split("enum sc_attach_type")[1].split("}")[0]
        self.same_numbers("## 5. Attaching a process", {name: int(n) for name, n in re.findall(r"SC_ATTACH_(\w+)\s*=\s*(\d+)", types)}, 8)

    def test_constants(self):
        rows = re.findall(r"^\| `(SC_\w+)` \| (\w+) \|", self.text, re.M)
        self.assertGreater(len(rows), 10)
        lines = ["#include <vhost-sc/%s>" % h for h in HEADERS]
        lines += ["_Static_assert(%s == %s, \"%s\");" % (name, value, name) for name, value in rows]
        done = subprocess.run(["gcc", "-std=gnu17", "-fsyntax-only", "-x", "c", "-I" + os.path.join(TOP, "include"), "-"], input="\n".join(lines) + "\n",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""))


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    unittest.main()
