// Opens a page in a headless Chromium, waits until it shows what it should, and takes its picture.
//
//   node look.mjs URL PICTURE [--changes] TEXT…
//
// Every TEXT must come to stand on the page; with --changes its words must also change by themselves afterwards. Anything
// on the browser's console, and any error of the page's script, is a failure. Exit: 0 all holds, 1 not.

import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const WAIT_MS = 120_000;

const [url, picture, ...rest] = process.argv.slice(2);
const changes = rest[0] === "--changes";
const texts = changes ? rest.slice(1) : rest;

const executablePath = await chromium.executablePath();
// Libraries and fonts come with the package; a machine with none of its own shows letters all the same.
const fonts = join(tmpdir(), "fonts.conf");
writeFileSync(
  fonts,
  `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
   <dir>${join(tmpdir(), "fonts")}</dir><cachedir>${join(tmpdir(), "font-cache")}</cachedir></fontconfig>`,
);
const browser = await puppeteer.launch({
  executablePath,
  headless: "shell",
  protocolTimeout: WAIT_MS,
  env: { ...process.env, HOME: tmpdir(), FONTCONFIG_FILE: fonts },
  // One process, no GPU: what a container allows.
  args: ["--no-sandbox", "--no-zygote", "--single-process", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
});
const faults = [];
try {
  const page = await browser.newPage();
  page.on("console", (message) => faults.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(`script: ${error.message}`));
  await page.setViewport({ width: 1280, height: 800 });
  await page.goto(url, { waitUntil: "load", timeout: WAIT_MS });
  for (const text of texts) {
    await page
      .waitForFunction((text) => document.body.textContent.includes(text), { timeout: WAIT_MS, polling: 200 }, text)
      .catch(() => faults.push(`"${text}" never came to stand on the page`));
  }
  if (changes) {
    const before = await page.evaluate(() => document.body.textContent);
    await page
      .waitForFunction((before) => document.body.textContent !== before, { timeout: WAIT_MS, polling: 200 }, before)
      .catch(() => faults.push("the page did not change by itself"));
  }
  await page.screenshot({ path: picture, fullPage: true });
  console.log(`${await browser.version()}: "${await page.title()}" in ${picture}`);
} finally {
  await browser.close();
}
for (const fault of faults) console.error(fault);
process.exit(faults.length === 0 ? 0 : 1);
