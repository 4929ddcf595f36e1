"""Calls the service with the client that openapi-python-client generated, and prints what it saw as JSON:
`python client.py <url of the service> <organization> <token>`.
"""

import json
import sys

from orgd_client.api.organizations import (
    get_organization,
    list_organization_changes,
    list_organizations,
    update_organization,
)
from orgd_client.client import AuthenticatedClient
from orgd_client.models.change_page import ChangePage
from orgd_client.models.field import Field
from orgd_client.models.organization import Organization
from orgd_client.models.organization_page import OrganizationPage
from orgd_client.models.organization_update import OrganizationUpdate
from orgd_client.models.problem import Problem
from orgd_client.models.problem_metadata import ProblemMetadata
from orgd_client.models.reason import Reason
from orgd_client.models.role import Role
from orgd_client.models.updated import Updated

url, organization, token = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=token)
id = int(organization)

body = OrganizationUpdate(name="By generated Python")
updated = update_organization.sync(id, client=client, body=body, prefer="return=representation")
assert isinstance(updated, Updated)
alone = update_organization.sync(
    id,
    client=client,
    body=OrganizationUpdate(),
    idempotency_key="7e0b6a52-13f5-4b8e-8f57-0f6a1d3c2b10",
)
assert isinstance(alone, Updated)
late = OrganizationUpdate(name="Too late")
refused = update_organization.sync(id, client=client, body=late, if_match='"0"')
assert isinstance(refused, Problem) and refused.reason is Reason.ETAG_MISMATCH
assert isinstance(refused.metadata, ProblemMetadata)
etag: str = refused.metadata["etag"]
found = get_organization.sync(id, client=client)
assert isinstance(found, Organization)
listed = list_organizations.sync(client=client, page_size=10)
assert isinstance(listed, OrganizationPage)
changes = list_organization_changes.sync(id, client=client)
assert isinstance(changes, ChangePage)
last = changes.changes[-1]
assert last.role is Role.USER
fields: list[Field] = [change.field for change in last.fields]

print(
    json.dumps(
        {
            "updated": updated.name,
            "alone": alone.to_dict(),
            "refused": etag,
            "found": found.name,
            "listed": [one.id for one in listed.organizations],
            "changed": [field.value for field in fields],
        }
    )
)
