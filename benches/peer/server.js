// The peer: PUT and GET of an organization as a good Node.js developer writes them, on Fastify and pg.
// Less than orgd does: no change log, no etags, no second API. Prints its address once it listens.
import { hash } from 'node:crypto';

import Fastify from 'fastify';
import pg from 'pg';

// As many connections as orgd has.
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });
pool.on('error', (error) => console.error(error));

// Named, so that each connection prepares a statement once.
const FIND_CREDENTIAL = {
  name: 'find-credential',
  text: `SELECT role, organization_id FROM credentials
    WHERE digest = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())`,
};
const UPDATE_ORGANIZATION = {
  name: 'update-organization',
  text: `UPDATE organizations SET name = $2, version = version + 1, date_modified = now()
    WHERE id = $1 RETURNING id`,
};
const FIND_ORGANIZATION = {
  name: 'find-organization',
  text: `SELECT id, name, subscription_id, version, date_created, date_modified
    FROM organizations WHERE id = $1`,
};

const id = { type: 'integer', minimum: 1, maximum: Number.MAX_SAFE_INTEGER };
const params = { type: 'object', properties: { id }, required: ['id'] };
const name = { type: 'string', minLength: 1, maxLength: 255 };

const updateSchema = {
  params,
  body: { type: 'object', properties: { name }, required: ['name'], additionalProperties: false },
  response: { 200: { type: 'object', properties: { id } } },
};
const findSchema = {
  params,
  response: {
    200: {
      type: 'object',
      properties: {
        id,
        name,
        subscriptionId: { type: 'string', nullable: true },
        dateCreated: { type: 'string', format: 'date-time' },
        dateModified: { type: 'string', format: 'date-time' },
        etag: { type: 'string' },
      },
    },
  },
};

// Two lines a request, where they are asked for.
const app = Fastify({ logger: process.env.LOG_LINES === '1' });
app.decorateRequest('principal', null);

// Before the body is read, as orgd does.
app.addHook('onRequest', async (request, reply) => {
  const [scheme, token] = (request.headers.authorization ?? '').split(' ');
  if (scheme !== 'Bearer' || !token) return reply.code(401).send({ error: 'no credential' });
  const { rows } = await pool.query({
    ...FIND_CREDENTIAL,
    values: [hash('sha256', token, 'buffer')],
  });
  if (rows.length === 0) return reply.code(401).send({ error: 'unknown credential' });
  request.principal = rows[0];
});

function mayAccess({ role, organization_id }, id) {
  return role !== 'user' || Number(organization_id) === id;
}

app.put('/v1/organizations/:id', { schema: updateSchema }, async (request, reply) => {
  const { id } = request.params;
  if (!mayAccess(request.principal, id)) return reply.code(403).send({ error: 'no right' });
  const { rows } = await pool.query({ ...UPDATE_ORGANIZATION, values: [id, request.body.name] });
  if (rows.length === 0) return reply.code(404).send({ error: 'no such organization' });
  return { id: Number(rows[0].id) };
});

app.get('/v1/organizations/:id', { schema: findSchema }, async (request, reply) => {
  const { id } = request.params;
  if (!mayAccess(request.principal, id)) return reply.code(403).send({ error: 'no right' });
  const { rows } = await pool.query({ ...FIND_ORGANIZATION, values: [id] });
  if (rows.length === 0) return reply.code(404).send({ error: 'no such organization' });
  const [row] = rows;
  return {
    id: Number(row.id),
    name: row.name,
    subscriptionId: row.subscription_id,
    dateCreated: row.date_created,
    dateModified: row.date_modified,
    etag: `"${row.version}"`,
  };
});

await app.listen({ host: '127.0.0.1', port: 0 });
const { address, port } = app.server.address();
console.log(`${address}:${port}`);
