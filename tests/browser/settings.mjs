// Does from pages of two origins what only settings allow: `node settings.mjs <url of the service>
// <organization> <token> <address of the first origin> <address of the second>`.

import { createServer } from 'node:http';
import process from 'node:process';
import { withBrowser } from './chromium.mjs';

const [url, organization, token, ...addresses] = process.argv.slice(2);

async function serve(address) {
  const [host, port] = address.split(':');
  const server = createServer((_, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>Another origin</title>');
  });
  await new Promise((listening) => server.listen(Number(port), host, listening));
  return server;
}

// What a page's own script sees of a conditional update and of what it made.
function attempt(page) {
  return page.evaluate(async ([target, authorization]) => {
    const headers = { authorization, 'content-type': 'application/json' };
    const conditions = { 'if-match': '"1"', prefer: 'return=representation' };
    const body = JSON.stringify({ name: 'With a condition' });
    try {
      const put = await fetch(target, { method: 'PUT', headers: { ...headers, ...conditions }, body });
      const get = await fetch(target, { headers });
      const exposed = ['etag', 'x-request-id', 'retry-after'].map((name) => get.headers.get(name) !== null);
      return { status: put.status, body: await put.json(), etag: get.headers.get('etag'), exposed };
    } catch (error) {
      return { error: error.name };
    }
  }, [`${url}/v1/organizations/${organization}`, `Bearer ${token}`]);
}

const servers = await Promise.all(addresses.map(serve));
await withBrowser(async (browser) => {
  const seen = [];
  for (const address of addresses) {
    const page = await browser.newPage();
    await page.goto(`http://${address}`);
    seen.push(await attempt(page));
  }
  return seen;
});
servers.forEach((server) => server.close());
