import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { patienceMs } from '../kit/until.ts';

const flags = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launch(more: string[] = []): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.CDE_TEST_CHROMIUM ?? '/usr/bin/chromium',
    args: [...flags, ...more],
    timeout: patienceMs,
  });
}

/** Collects what must not happen in any page: policy violations, uncaught errors, requests to other origins. */
export interface Watch {
  faults: string[];
  /** Removes expected entries from the list, for example while the server is down. */
  forgive(pattern: RegExp): void;
}

// The browser itself logs responses such as 401 and 404 to the console, and repeats requests when an interface of the machine
// comes or goes, as those of workspaces do.
const expected =
  /Failed to load resource: the server responded with a status of \d+|net::ERR_ABORTED|net::ERR_NETWORK_CHANGED/;

/** Watches every page of a context, including those opened later. */
export async function watch(context: BrowserContext, origin: string): Promise<Watch> {
  const faults: string[] = [];
  await context.exposeFunction('cdeReport', (fault: string) => faults.push(fault));
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) =>
      (window as unknown as { cdeReport(text: string): void }).cdeReport(
        `policy: ${event.violatedDirective} ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber}`,
      ),
    );
  });
  const follow = (page: Page) => {
    page.on('pageerror', (error) => faults.push(`error: ${error.stack ?? error.message}`));
    page.on('console', (message) => {
      if (message.type() === 'error' && !expected.test(message.text()))
        faults.push(`console: ${message.text()}`);
    });
    page.on('request', (request) => {
      const url = request.url();
      if (/^(https?|wss?):/.test(url) && new URL(url).origin !== origin) faults.push(`request: ${url}`);
    });
  };
  for (const page of context.pages()) follow(page);
  context.on('page', follow);
  return {
    faults,
    forgive(pattern) {
      for (let at = faults.length - 1; at >= 0; at -= 1) if (pattern.test(faults[at]!)) faults.splice(at, 1);
    },
  };
}
