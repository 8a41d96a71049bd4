"""What a value of the stack's configuration looks like, and how a message says so."""

ACME_SERVER = r"^https://[^\s/]+/\S*$"
BRANCH = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"
# Secrets Manager ends its ARNs with six random letters, and IAM needs them.
CERTIFICATE = (
    r"^arn:aws[a-z-]*:(ssm:[a-z0-9-]+:[0-9]{12}:parameter/[A-Za-z0-9_./-]+"
    r"|secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6})$"
)
CIDR = r"^([0-9]{1,3}\.){3}[0-9]{1,3}(/[0-9]{1,2})?$"
CLIENT_ID = r"^\S+$"
CLUSTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$"
CLUSTER_ROLE = r"^[A-Za-z0-9.:_-]+$"
ENVIRONMENT = r"^[A-Za-z0-9]([A-Za-z0-9._/ -]*[A-Za-z0-9._/-])?$"
EAB_KEY = r"^[A-Za-z0-9_-]{16,}=*$"
EAB_KEY_ID = r"^[!-~]+$"
EMAIL = r"^[^@\s]+@[^@\s]+\.[^@\s.]+$"
HOST_NAME = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
IAM_PATH = r"^/([A-Za-z0-9+=,.@_-]+/)*$"
# Only generations that show volumes as NVMe devices, because the host finds its volume that way.
INSTANCE_TYPE = (
    r"^(t([3-9]|[1-9][0-9])|[mcr]([5-9]|[1-9][0-9]))[a-z]*(-flex)?"
    r"\.(nano|micro|small|medium|large|metal|[0-9]*xlarge|metal-[0-9]+xl)$"
)
KMS_KEY = r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$"
KUBERNETES_GROUP = r"^[^\s*]([^*]*[^\s*])?$"
LOGIN = r"^[a-z_][a-z0-9_-]{0,31}$"
MAINTENANCE_WINDOW = r"^(none|(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([01][0-9]|2[0-3]):[0-5][0-9])$"
NAMESPACE_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
ORGANIZATION = r"^[A-Za-z0-9](-?[A-Za-z0-9]){0,38}$"
POLICY_ARN = r"^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+$"
REPOSITORY = r"^[A-Za-z0-9](-?[A-Za-z0-9]){0,38}/[A-Za-z0-9._-]{1,100}$"
SESSION_TTL = r"^([0-9]{1,2}h)?([0-9]{1,4}m)?$"
SHA256 = r"^[0-9a-f]{64}$"
SNAPSHOT = r"^snap-[0-9a-f]{8,17}$"
SUBNET = r"^subnet-[0-9a-f]{8,17}$"
TAG_KEY = r"^[A-Za-z0-9 _.:/=+@-]{1,128}$"  # what all services take
TAG_VALUE = r"^[A-Za-z0-9 _.:/=+@-]{0,256}$"
TEAM_SLUG = r"^[a-z0-9][a-z0-9_-]*$"
TOPIC = r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$"
VERSION = r"^[0-9]+\.[0-9]+\.[0-9]+$"

# The rule in a message, by the pattern that does not match, or by pydantic's name of another error.
WORDS = {
    ACME_SERVER: "must be the https address of an ACME directory",
    BRANCH: "must be the name of a branch, without refs/heads/ and without '*'",
    CERTIFICATE: "must be the whole ARN of an SSM parameter or of a Secrets Manager secret",
    CIDR: "must be an IPv4 range such as 203.0.113.7/32 (the proxy has an IPv4 address only)",
    CLIENT_ID: "must be the OAuth app's client id",
    CLUSTER_NAME: "must be the name of an EKS cluster",
    CLUSTER_ROLE: "must be the name of a ClusterRole",
    ENVIRONMENT: "must be the name of one GitHub environment",
    EAB_KEY: "must be the HMAC key in base64url, as the certificate authority shows it",
    EAB_KEY_ID: "must be the key's id, as the certificate authority shows it",
    EMAIL: "must be an e-mail address",
    HOST_NAME: "must be a DNS name in lower case, without a dot at the end",
    IAM_PATH: "must be an IAM path, such as /platform/",
    INSTANCE_TYPE: "must be a current instance type of the T, M, C or R family (t3, m5, c5, r5 or newer), "
    "x86-64 such as t3.small or arm64 such as t4g.small",
    KMS_KEY: "must be the ARN of a KMS key, not of an alias",
    KUBERNETES_GROUP: "must be the name of one Kubernetes group, without '*' and without blanks around it",
    LOGIN: "must be a Unix login",
    MAINTENANCE_WINDOW: "must be a day and a time in UTC, such as Sun 03:00, or none",
    NAMESPACE_NAME: "must be the name of a Kubernetes namespace",
    ORGANIZATION: "must be a GitHub organization's login, as its page on GitHub writes it",
    POLICY_ARN: "must be the ARN of a managed IAM policy",
    REPOSITORY: "must be a repository as owner/name, as its page on GitHub writes it",
    SESSION_TTL: "must be a time such as 12h, 90m or 1h30m, and at most 30h, which is Teleport's limit",
    SHA256: "must be 64 hexadecimal digits in lower case",
    SNAPSHOT: "must be a snapshot's id",
    SUBNET: "must be a subnet's id",
    TAG_KEY: "must be a tag's key: letters, digits, blanks and _ . : / = + - @",
    TAG_VALUE: "must be a tag's value: letters, digits, blanks and _ . : / = + - @",
    TEAM_SLUG: "must be the team's slug: lower case, '-' for blanks, as in the team's address on GitHub",
    TOPIC: "must be the ARN of a standard SNS topic",
    VERSION: "must be a release such as '18.10.1', quoted, without 'v'",
    "bool_parsing": "must be true or false",
    "greater_than_equal": "must be at least {ge}",
    "int_parsing": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "required",
    "model_type": "must be a map with the keys of a {class_name}",
    "dict_type": "must be a YAML map",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be text",
    "too_long": "must have at most {max_length} items",
    "tuple_type": "must be a YAML list",
    "value_error": "{error}",
}
