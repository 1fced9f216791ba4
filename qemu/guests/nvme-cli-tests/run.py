"""Runs nvme-cli's own test-suite against the controller and namespace that are given, but for what left-out.txt names.

The suite is not changed. What stands in its way is no fault of the controller's: it takes only controllers of PCIe, it has the
names of devices in a file, and it reads a form of the SMART log that its own version of nvme-cli prints no more (see nvme.sh).
"""

import io
import json
import os
import subprocess
import sys
import unittest

FOLDER = os.path.dirname(os.path.abspath(__file__))
FEATURES = "nvme_get_features_test"


def identified(controller):
    """The fields of Identify Controller."""
    text = subprocess.run(["nvme", "id-ctrl", controller, "-o", "json"], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(text)


def left_out(fields, modules):
    """What is left out, and why; each line has to be true."""
    lines = {}
    with open(os.path.join(FOLDER, "left-out.txt"), encoding="utf-8") as file:
        for line in file:
            if line.startswith("#") or not line.strip():
                continue
            name, field, mask, value, reason = line.strip().split(" ", 4)
            if name.partition(":")[0] not in modules:
                sys.exit(f"left-out.txt names {name}, which is no test of the suite")
            if field != "-" and fields[field] & int(mask, 0) != int(value, 0):
                sys.exit(f"{name} is left out because: {reason}; but {field} is {fields[field]:#x}")
            lines[name] = reason
    return lines


def adapt(names):
    """Lets the suite take a controller of fabrics, and no more features than apply."""
    import nvme_test

    nvme_test.TestNVMe.validate_pci_device = lambda self: None
    features = __import__(FEATURES).TestNVMeGetMandatoryFeatures
    original = features.get_mandatory_features
    features.get_mandatory_features = lambda self, feature: (
        None if f"{FEATURES}:{feature}" in names else original(self, feature)
    )


def main(controller, namespace):
    """One test after the other; the exit code is the number that has failed."""
    os.chdir(FOLDER)
    sys.path.insert(0, "tests")
    with open("tests/config.json", "w", encoding="utf-8") as file:
        json.dump({"controller": controller, "ns1": namespace, "log_dir": "/tmp/nvmetests/"}, file)
    modules = sorted(name[:-3] for name in os.listdir("tests") if name.endswith("_test.py"))
    # The template of which others are made, and the class below all of them.
    modules = [name for name in modules if name not in ("nvme_test", "nvme_simple_template_test")]
    names = left_out(identified(controller), modules)
    adapt(names)
    passed = failed = 0
    for module in modules:
        if module in names:
            print(f"left out  {module}: {names[module]}")
            continue
        output, console = io.StringIO(), sys.stdout
        result = unittest.TextTestRunner(stream=output).run(unittest.defaultTestLoader.loadTestsFromName(module))
        sys.stdout = sys.stderr = console
        good = result.wasSuccessful() and result.testsRun > 0 and not result.skipped
        passed, failed = passed + good, failed + (not good)
        print(f"{'passed' if good else 'FAILED'}    {module}", flush=True)
        if not good:
            print(output.getvalue())
    whole = sum(":" not in name for name in names)
    print(f"@@ FIGURE nvme-cli-tests {passed} passed, {failed} failed, {whole} left out of {len(modules)}")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
