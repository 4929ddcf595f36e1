// The distribution's Chromium, headless, driven by playwright-core from target/browser.

import { accessSync, constants } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import process from 'node:process';

const packages = new URL('../../target/browser/', import.meta.url);
const { chromium } = createRequire(packages)('playwright-core');

const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];

function executable() {
  const folders = process.env.PATH.split(delimiter);
  const found = NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (!found) throw new Error(`none of ${NAMES.join(', ')} is installed`);
  return found;
}

// Runs with a browser, and prints what comes back as JSON.
export async function withBrowser(run) {
  // Chromium's sandbox refuses to run as root.
  const args = process.getuid() === 0 ? ['--no-sandbox'] : [];
  const browser = await chromium.launch({ executablePath: executable(), args });
  try {
    console.log(JSON.stringify(await run(browser)));
  } finally {
    await browser.close();
  }
}
