"""The editor of `aws-auth`, the ConfigMap in which EKS maps IAM roles to Kubernetes users.

Nodes, other tools and people have their entries in the same text, and a wrong text locks all of them out. So the editor
inserts or removes one list item of ``mapRoles`` as text. Every other byte stays: comments, order, quoting, line ends,
unknown keys, ``mapUsers``, ``mapAccounts``. It parses the result again, and writes it only if that is the old content
plus or minus our entry. Removing what was added gives back the original bytes.

    python -m teleport_eks.aws_auth add|remove|show --kubeconfig FILE --role-arn ARN --username U --group G

``add`` appends the entry with the comment ``# teleport-eks``. If the role has an entry with other groups, ``add``
replaces it if it has that comment. Otherwise, as in a JSON list, which has no comments, it does so only with
``--adopt``. ``remove`` takes out an entry that is exactly as asked, and warns of one that is not. With ``--adopt`` it
takes out every entry that names the role, also by ``userarn`` or under ``mapUsers``, where the guide of 2019 put it.
With ``--unreachable-ok``, ``remove`` succeeds if the API server does not answer for a minute, and warns of what may
be left, so that a stack can be destroyed after its cluster. Neither command deletes the ConfigMap or its ``mapRoles``:
if ``add`` created them, ``remove`` leaves them empty.

Before each write, the editor copies the map's data to ``kube-system/aws-auth-before-teleport-eks``. The copy stays
after ``remove``. To undo the last write:

    kubectl -n kube-system get configmap aws-auth-before-teleport-eks -o json | jq '{data}' |
      kubectl -n kube-system patch configmap aws-auth --type merge --patch-file /dev/stdin
"""
