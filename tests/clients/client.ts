// Calls the service with the client that openapi-typescript generated (`schema.ts`), and prints what it saw as
// JSON: `node client.js <url of the service> <organization> <token>`.

import process from 'node:process';
import createClient from 'openapi-fetch';
import type { components, paths } from './schema.js';

const [baseUrl = '', organization = '', token = ''] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl, headers: { authorization: `Bearer ${token}` } });
const id = Number(organization);

// The types that callers want: a reason is one of those that there are.
const stale: components['schemas']['Reason'] = 'ETAG_MISMATCH';
const user: components['schemas']['Role'] = 'user';

// The first event that has a change, after version 0. Whoever stops reading closes the stream.
async function firstEvent(): Promise<number> {
  const { response } = await client.GET('/v1/organizations/{id}/events', {
    params: { path: { id }, query: { lastEventId: 0 } },
    parseAs: 'stream',
  });
  let text = '';
  for await (const piece of response.body ?? []) {
    text += Buffer.from(piece).toString();
    const data = /^data: (.*)\n\n/m.exec(text)?.[1];
    if (data) {
      const change: components['schemas']['Change'] = JSON.parse(data);
      return change.version;
    }
  }
  throw new Error(`no event: ${text}`);
}

const updated = await client.PUT('/v1/organizations/{id}', {
  params: { path: { id }, header: { Prefer: 'return=representation' } },
  body: { name: 'By generated TypeScript' },
});
const alone = await client.PUT('/v1/organizations/{id}', { params: { path: { id } }, body: {} });
const refused = await client.PUT('/v1/organizations/{id}', {
  params: { path: { id }, header: { 'If-Match': '"0"' } },
  body: { name: 'Too late' },
});
const found = await client.GET('/v1/organizations/{id}', { params: { path: { id } } });
const list = await client.GET('/v1/organizations', { params: { query: { pageSize: 10 } } });
const changes = await client.GET('/v1/organizations/{id}/changes', { params: { path: { id } } });
const problem = refused.error;
const last = changes.data?.changes.at(-1);
const etag: string | undefined = problem?.metadata?.['etag'];

console.log(JSON.stringify({
  updated: updated.data?.name,
  alone: alone.data,
  refused: problem?.reason === stale && etag,
  found: found.data?.name,
  listed: list.data?.organizations.map((one) => one.id),
  changed: last?.role === user && last.fields.map((one) => one.field),
  event: await firstEvent(),
}));
