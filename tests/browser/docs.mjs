// Tries the API on the page at /docs as a person would, or with a folder takes pictures of that, in
// light and dark, narrow and wide: `node docs.mjs <url of the service> <token> [folder]`.

import { join } from 'node:path';
import process from 'node:process';
import { withBrowser } from './chromium.mjs';

const [url, token, folder] = process.argv.slice(2);

// The page in a window of its own, with everything that it complains of and asks for.
async function open(browser, colorScheme, width) {
  const context = await browser.newContext({ colorScheme, viewport: { width, height: 1000 } });
  const page = await context.newPage();
  const errors = [];
  const requests = [];
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('request', (request) => requests.push(request.url()));
  await page.goto(`${url}/docs`);
  await page.locator('.opblock-summary-put').waitFor();
  return { page, errors, requests };
}

// Pastes the token.
async function authorize(page, pasted = () => {}) {
  await page.locator('.scheme-container .authorize').click();
  await page.locator('.auth-container input').fill(token);
  await pasted();
  await page.locator('.auth-btn-wrapper .authorize').click();
  await page.locator('.auth-btn-wrapper .btn-done').click();
}

// Opens the documented PUT; the example that stands in it.
async function openUpdate(page) {
  await page.locator('.opblock-summary-put .opblock-summary-control').click();
  return page.locator('.opblock-put .body-param__text').inputValue();
}

// Writes another body over the one that stands there, sends it, and reads the answer that is shown.
async function send(page, body) {
  await page.locator('.opblock-put .body-param__text').fill(body);
  const answered = page.waitForResponse((response) => response.request().method() === 'PUT');
  await page.locator('.opblock-put .execute').click();
  const status = String((await answered).status());
  const shown = page.locator('.opblock-put .live-responses-table tbody');
  await shown.locator('.response-col_status', { hasText: status }).waitFor();
  const text = await shown.locator('.highlight-code code').first().innerText();
  return { status: await shown.locator('.response-col_status').innerText(), body: text };
}

// The operations of the page, as `PUT /v1/organizations/{id}`.
function operations(page) {
  const summaries = page.locator('.opblock-summary');
  return summaries.evaluateAll((all) => all.map((one) => {
    const text = (part) => one.querySelector(part).textContent.replaceAll('\u200b', '').trim();
    return `${text('.opblock-summary-method')} ${text('.opblock-summary-path')}`;
  }));
}

// The operations that the page can send, by the ends of their ids; an operation is opened to see it.
async function executable(page) {
  const blocks = await page.locator('.opblock').all();
  const found = [];
  for (const block of blocks) {
    if (!(await block.evaluate((one) => one.classList.contains('is-open')))) {
      await block.locator('.opblock-summary-control').click();
    }
    await block.locator('.execute').waitFor({ state: 'attached' });
    if (await block.locator('.execute').isVisible()) {
      found.push((await block.getAttribute('id')).split('-').at(-1));
    }
  }
  return found;
}

// How the page looks, at its start and with a refusal.
async function look(browser, colorScheme, width) {
  const { page, errors, requests } = await open(browser, colorScheme, width);
  const shoot = (name) =>
    page.screenshot({ path: join(folder, `docs-${colorScheme}-${width}-${name}.png`) });
  const isDark = await page.evaluate(() => document.documentElement.matches('.dark-mode'));
  await shoot('start');
  await authorize(page, () => shoot('token'));
  await openUpdate(page);
  await shoot('update');
  await send(page, '{"subscriptionId": "enterprise"}');
  await page.locator('.opblock-put .execute').evaluate((button) => button.scrollIntoView());
  await shoot('refusal');
  // Pixels to scroll sideways, which nobody should have to.
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await page.context().close();
  return { colorScheme, width, isDark, sideways, errors, requests };
}

// The documented PUT, once well and once refused.
async function attempt(browser) {
  const { page, errors, requests } = await open(browser, 'light', 1400);
  const listed = await operations(page);
  await authorize(page);
  const example = await openUpdate(page);
  const shown = page.locator('.opblock-put .responses-inner .response .highlight-code');
  const refusals = (await shown.allInnerTexts()).filter((text) => text.includes('"reason"'));
  const stored = await send(page, example.replace('Custom Name', 'Typed Name'));
  const errorsUntilStored = errors.slice();
  const refused = await send(page, '{"subscriptionId": "enterprise"}');
  const sendable = await executable(page);
  return { listed, sendable, example, refusals, stored, errorsUntilStored, refused, errors, requests };
}

async function looks(browser) {
  const kinds = ['light', 'dark'].flatMap((scheme) => [400, 1400].map((width) => [scheme, width]));
  return Promise.all(kinds.map(([scheme, width]) => look(browser, scheme, width)));
}

await withBrowser(folder ? looks : attempt);
