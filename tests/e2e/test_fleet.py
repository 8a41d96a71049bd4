"""Several stacks at once; tests/unit/test_fleet.py has what needs no engine."""

import re
from typing import Any

import yaml

from sandbox.account import AWS_AUTH
from tests.e2e.shell import Shell


def write_stack(shell: Shell, name: str, **changes: str) -> None:
    config = yaml.safe_load((shell.project / "Pulumi.dev.yaml").read_text())
    config["config"] |= {"teleport-eks:kubeconfig": "~/.kube/config", "teleport-eks:suffixNames": "true"}
    config["config"] |= {f"teleport-eks:{key}": value for key, value in changes.items()}
    (shell.project / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump(config))
    shell.run(f"pulumi stack init {name}")


def row(said: str, stack: str) -> str:
    """What the table at the end says of the stack."""
    (summary,) = re.findall(rf"^  {stack} +\d+ s  (.*)$", said, re.MULTILINE)
    return summary


def test_one_stack_that_fails_stops_no_other_and_only_it_is_run_again(shell: Shell, core: Any) -> None:
    write_stack(shell, "blue")
    write_stack(shell, "green")
    write_stack(shell, "red", acmeEmail="nobody")

    previewed = shell.run("make fleet-preview", code=2)
    assert row(previewed, "blue") == row(previewed, "green") == "create 34"
    assert row(previewed, "red") == "FAILED: error: 1 problem in Pulumi.red.yaml. Nothing was created or changed."
    assert row(shell.run("make fleet-up PARALLEL=3", code=2), "green") == "create 34"

    fixed = (shell.project / "Pulumi.red.yaml").read_text().replace("acmeEmail: nobody", "acmeEmail: a@example.com")
    (shell.project / "Pulumi.red.yaml").write_text(fixed)
    resumed = shell.run("make fleet-up RESUME=--resume")
    assert row(resumed, "red") == "create 33"  # the stack itself is there
    assert "blue" not in resumed
    assert row(shell.run('make fleet-preview STACKS="blue red"'), "red") == "no changes"

    # Somebody takes a rule out by hand: a preview does not see it, a comparison with what is really there does.
    group = shell.run("pulumi stack output securityGroupId -s blue").strip()
    rules = "aws ec2 describe-security-group-rules --filters Name=group-id,Values=" + group
    rule = shell.run(f"{rules} --query 'SecurityGroupRules[?FromPort==`3080`].SecurityGroupRuleId' --output text")
    shell.run(f"aws ec2 revoke-security-group-ingress --group-id {group} --security-group-rule-ids {rule}")
    assert row(shell.run("make fleet-preview STACKS=blue"), "blue") == "no changes"
    drifted = shell.run(".venv/bin/python -m fleet drift blue red", code=3)
    assert (row(drifted, "blue"), row(drifted, "red")) == ("create 1", "no changes")
    assert "aws:vpc/securityGroupIngressRule" in (shell.project / ".fleet/blue.log").read_text()
    assert row(shell.run("make fleet-drift STACKS=red"), "red") == "no changes"

    shell.run("for stack in blue green red; do pulumi destroy -s $stack; done")
    assert core.read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH
