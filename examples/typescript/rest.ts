/**
 * Changes an organization and follows its change log, over REST with fetch.
 *
 * EXAMPLE_HTTP is the service's address, such as http://127.0.0.1:8080, ORGD_TOKEN a token,
 * EXAMPLE_ORGANIZATION the id of an organization, EXAMPLE_ENTRIES how many changes to show before the end;
 * without it there is none.
 */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const NAME = "By the TypeScript REST example";
/** What a call may take, each try by itself. */
const TIMEOUT_MS = 10_000;
const TRIES = 4;
/** Where the answer does not say how long to wait. */
const WAIT_MS = 1_000;
/** Between two looks at the end of the change log. */
const POLL_MS = 500;
/** Small, so that the example turns pages; the service gives 500 at most. */
const PAGE_SIZE = 2;

interface Organization {
  id: number;
  name: string;
  subscriptionId?: string;
  etag: string;
}

interface Change {
  version: number;
  subject: string;
  fields: { field: string }[];
}

interface ChangesPage {
  changes: Change[];
  nextPageToken?: string;
}

/** RFC 9457. */
interface Problem {
  status: number;
  reason: string;
  detail: string;
  requestId: string;
}

class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(`${problem.reason} (request ${problem.requestId}): ${problem.detail}`);
  }
}

function variable(name: string): string {
  const value = process.env[name];
  if (value) return value;
  console.error(`set ${name}`);
  process.exit(1);
}

const url = `${variable("EXAMPLE_HTTP")}/v1/organizations/${variable("EXAMPLE_ORGANIZATION")}`;
const authorization = `Bearer ${variable("ORGD_TOKEN")}`;

async function changeName(): Promise<void> {
  const old = await call<Organization>(url);
  // The same name again would change nothing, and the etag read before would not be stale.
  const name = old.name === NAME ? `${NAME}, again` : NAME;
  // With If-Match the update is made only if nobody else has changed what was read.
  const updated = await update({ name }, { "If-Match": old.etag });
  console.log(`name: ${old.name} -> ${updated.name}`);

  try {
    await update({ name: "Too late" }, { "If-Match": old.etag });
  } catch (error) {
    if (!(error instanceof Refused) || error.problem.status !== 412) throw error;
    console.log(`stale etag refused: ${error.problem.reason}`);
    return;
  }
  throw new Error("a stale etag was taken");
}

async function clearSubscription(): Promise<void> {
  const updated = await update({ subscriptionId: null });
  if (updated.subscriptionId !== undefined) throw new Error("the subscription is still there");
  console.log("subscription cleared");
}

function update(
  fields: { name?: string; subscriptionId?: string | null },
  headers: Record<string, string> = {},
): Promise<Organization> {
  return call(url, {
    method: "PUT",
    body: JSON.stringify(fields),
    headers: {
      "Content-Type": "application/json",
      Prefer: "return=representation",
      // The same in every try, so that the update is made once however many arrive.
      "Idempotency-Key": randomUUID(),
      ...headers,
    },
  });
}

/** The changes after a version, those to come too. */
async function* follow(after: number): AsyncGenerator<Change> {
  const query = new URLSearchParams({ pageSize: String(PAGE_SIZE) });
  for (;;) {
    const page = await call<ChangesPage>(`${url}/changes?${query}`);
    for (const change of page.changes) {
      if (change.version <= after) continue;
      after = change.version;
      yield change;
    }
    if (page.nextPageToken) query.set("pageToken", page.nextPageToken);
    // The last page grows as changes come, so it is read again.
    else await sleep(POLL_MS);
  }
}

/**
 * Makes a call, and makes it again where that helps. Every call here may be repeated: one that reads
 * changes nothing, and an update has its Idempotency-Key.
 */
async function call<T>(url: string, init: RequestInit = {}): Promise<T> {
  for (let triesLeft = TRIES - 1; ; triesLeft--) {
    let wait = WAIT_MS;
    try {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      const headers = { ...init.headers, Authorization: authorization };
      const response = await fetch(url, { ...init, headers, signal });
      const body: unknown = await response.json();
      if (response.ok) return body as T;
      const isWorthwhile = [429, 503, 504].includes(response.status);
      if (!isWorthwhile || triesLeft === 0) throw new Refused(body as Problem);
      wait = Number(response.headers.get("Retry-After") ?? 1) * 1_000;
    } catch (error) {
      // Anything else is that nobody answered, or not in time.
      if (error instanceof Refused || triesLeft === 0) throw error;
    }
    await sleep(wait);
  }
}

async function main(): Promise<void> {
  await changeName();
  await clearSubscription();
  let entries = Number(process.env["EXAMPLE_ENTRIES"] ?? Infinity);
  for await (const { version, subject, fields } of follow(0)) {
    console.log(`change ${version} by ${subject}: ${fields.map(({ field }) => field).join(", ")}`);
    if (--entries <= 0) break;
  }
}

main().catch((error: unknown) => {
  // Of a call that nobody answered, only the cause says why.
  const { message, cause } = error as Error;
  console.error(cause instanceof Error ? `${message}: ${cause.message}` : message);
  process.exitCode = 1;
});
