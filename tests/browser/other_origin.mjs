// Does the documented PUT from a page of another origin:
// `node other_origin.mjs <url of the service> <organization> <token>`.

import { createServer } from 'node:http';
import process from 'node:process';
import { withBrowser } from './chromium.mjs';

const [url, organization, token] = process.argv.slice(2);
const UNKNOWN_TOKEN = '00000000-0000-4000-8000-000000000000';

const server = createServer((_, response) => {
  response.setHeader('content-type', 'text/html');
  response.end('<!doctype html><title>Another origin</title>');
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const origin = `http://127.0.0.1:${server.address().port}`;

// What the page's own script sees of the answer.
function put(page, bearer, body) {
  return page.evaluate(async ([target, authorization, text]) => {
    const headers = { authorization, 'content-type': 'application/json' };
    const answer = await fetch(target, { method: 'PUT', headers, body: text });
    return {
      status: answer.status,
      contentType: answer.headers.get('content-type'),
      requestId: answer.headers.get('x-request-id'),
      body: await answer.json(),
    };
  }, [`${url}/v1/organizations/${organization}`, `Bearer ${bearer}`, JSON.stringify(body)]);
}

await withBrowser(async (browser) => {
  const page = await browser.newPage();
  await page.goto(origin);
  // Preflights are the browser's own requests: only its debugger tells of them.
  const preflights = [];
  const debug = await page.context().newCDPSession(page);
  debug.on('Network.responseReceived', ({ type, response }) => {
    if (type === 'Preflight') preflights.push({ url: response.url, status: response.status });
  });
  await debug.send('Network.enable');
  return {
    stored: await put(page, token, { name: 'From Elsewhere' }),
    forbidden: await put(page, token, { subscriptionId: 'enterprise' }),
    unknown: await put(page, UNKNOWN_TOKEN, { name: 'Nobody' }),
    preflights,
  };
});
server.close();
