/**
 * Changes an organization and follows its change log, over gRPC.
 *
 * EXAMPLE_GRPC is the service's host:port, ORGD_TOKEN a token, EXAMPLE_ORGANIZATION the id of an
 * organization, EXAMPLE_ENTRIES how many changes to show before the end; without it there is none.
 *
 * The types below gen/ are generated from the proto files by `npm run build`, with the options that
 * the proto files are loaded with here.
 */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import {
  type CallOptions,
  Metadata,
  type ServiceError,
  credentials,
  loadPackageDefinition,
  type requestCallback,
  status as Code,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import type { ErrorInfo__Output as ErrorInfo } from "./gen/google/rpc/ErrorInfo.js";
import type { RetryInfo__Output as RetryInfo } from "./gen/google/rpc/RetryInfo.js";
import type { Change__Output as Change } from "./gen/organization/v1/Change.js";
import type { ListChangesResponse__Output as ChangesPage } from "./gen/organization/v1/ListChangesResponse.js";
import type {
  Organization as Fields,
  Organization__Output as Organization,
} from "./gen/organization/v1/Organization.js";
import type { ProtoGrpcType as ServiceTypes } from "./gen/organization_service.js";
import type { ProtoGrpcType as StatusTypes } from "./gen/status.js";

const NAME = "By the TypeScript gRPC example";
/** What a call may take, each try by itself. */
const TIMEOUT_MS = 10_000;
const TRIES = 4;
/** Where the answer does not say how long to wait. */
const WAIT_MS = 1_000;
/** Between two looks at the end of the change log. */
const POLL_MS = 500;
/** Small, so that the example turns pages; the service gives 500 at most. */
const PAGE_SIZE = 2;

function variable(name: string): string {
  const value = process.env[name];
  if (value) return value;
  console.error(`set ${name}`);
  process.exit(1);
}

const files = ["organization/v1/organization_service.proto", "status.proto"];
// The service's own proto files; from dist/, where this program runs.
const folders = ["../../../proto", ".."].map((to) => fileURLToPath(new URL(to, import.meta.url)));
const options = { longs: Number, enums: String, defaults: true, json: true, includeDirs: folders };
const packages = loadPackageDefinition(loadSync(files, options));
const { organization, google } = packages as unknown as ServiceTypes & StatusTypes;

const id = Number(variable("EXAMPLE_ORGANIZATION"));
const insecure = credentials.createInsecure();
const client = new organization.v1.OrganizationService(variable("EXAMPLE_GRPC"), insecure);
const metadata = new Metadata();
metadata.set("authorization", `Bearer ${variable("ORGD_TOKEN")}`);

async function changeName(): Promise<void> {
  const old = await call<Organization>((...rest) => client.Get({ id }, ...rest));
  // The same name again would change nothing, and the etag read before would not be stale.
  const name = old.name === NAME ? `${NAME}, again` : NAME;
  // With the etag the update is made only if nobody else has changed what was read.
  const updated = await update("name", { name, etag: old.etag });
  console.log(`name: ${old.name} -> ${updated.name}`);

  try {
    await update("name", { name: "Too late", etag: old.etag });
  } catch (error) {
    if (!isServiceError(error) || reason(error) !== "ETAG_MISMATCH") throw error;
    console.log("stale etag refused: ETAG_MISMATCH");
    return;
  }
  throw new Error("a stale etag was taken");
}

async function clearSubscription(): Promise<void> {
  // In the mask and without a value: cleared.
  const updated = await update("subscription_id", {});
  if (updated.subscriptionId !== undefined) throw new Error("the subscription is still there");
  console.log("subscription cleared");
}

function update(field: string, fields: Fields): Promise<Organization> {
  const request = {
    organization: { id, ...fields },
    updateMask: { paths: [field] },
    // The same in every try, so that the update is made once however many arrive.
    requestId: randomUUID(),
  };
  return call((...rest) => client.Update(request, ...rest));
}

/** The changes after a version, those to come too. */
async function* follow(after: number): AsyncGenerator<Change> {
  const request = { organizationId: id, pageSize: PAGE_SIZE, pageToken: "" };
  for (;;) {
    const page = await call<ChangesPage>((...rest) => client.ListChanges(request, ...rest));
    for (const change of page.changes) {
      if (change.version <= after) continue;
      after = change.version;
      yield change;
    }
    if (page.nextPageToken) request.pageToken = page.nextPageToken;
    // The last page grows as changes come, so it is read again.
    else await sleep(POLL_MS);
  }
}

/**
 * Makes a call, and makes it again where that helps. Every call here may be repeated: one that reads
 * changes nothing, and an update has its requestId.
 */
async function call<T>(
  send: (metadata: Metadata, options: CallOptions, done: requestCallback<T>) => void,
): Promise<T> {
  for (let triesLeft = TRIES - 1; ; triesLeft--) {
    try {
      return await new Promise<T>((resolve, reject) => {
        send(metadata, { deadline: Date.now() + TIMEOUT_MS }, (error, answer) => {
          if (answer === undefined) reject(error);
          else resolve(answer);
        });
      });
    } catch (error) {
      const wait = isServiceError(error) ? waitMs(error) : undefined;
      if (wait === undefined || triesLeft === 0) throw error;
      await sleep(wait);
    }
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

/** How long to wait before the next try; undefined where trying again does not help. */
function waitMs(error: ServiceError): number | undefined {
  const delay = detail<RetryInfo>(error, "RetryInfo")?.retryDelay;
  if (delay) return Number(delay.seconds) * 1_000 + delay.nanos / 1_000_000;
  // Nobody answered, or not in time.
  const isSilence = [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED].includes(error.code);
  return isSilence ? WAIT_MS : undefined;
}

function reason(error: ServiceError): string {
  return detail<ErrorInfo>(error, "ErrorInfo")?.reason ?? Code[error.code];
}

/** The status's detail of a kind, if it has one. */
function detail<T>(error: ServiceError, kind: string): T | undefined {
  const [encoded] = error.metadata.get("grpc-status-details-bin");
  if (!(encoded instanceof Buffer)) return undefined;
  const { details } = google.rpc.Status.deserialize(encoded);
  const type = `type.googleapis.com/google.rpc.${kind}`;
  return details.find((detail) => "@type" in detail && detail["@type"] === type) as T | undefined;
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

/** A failure as a person needs it: its reason, the id to ask the service's people about, its text. */
function told(error: unknown): string {
  if (!isServiceError(error)) return String(error);
  const [requestId = "unknown"] = error.metadata.get("x-request-id");
  return `${reason(error)} (request ${requestId}): ${error.details}`;
}

main()
  .catch((error: unknown) => {
    console.error(told(error));
    process.exitCode = 1;
  })
  .finally(() => client.close());
