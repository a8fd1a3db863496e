import type { Workspace } from '@cde/api/workspaces.ts';
import type { Browser, BrowserContext, Locator, Page } from 'playwright-core';
import { patienceMs } from '../kit/until.ts';
import { launch, type Watch, watch } from './browser.ts';
import { type RealServer, startServer } from './server.ts';

/** The real server and one page of a real browser. */
export interface Stage {
  server: RealServer;
  browser: Browser;
  context: BrowserContext;
  page: Page;
  watched: Watch;
  /** A request with the browser's cookie and session key, like the dashboard's own. */
  api<T>(method: string, path: string, body?: unknown): Promise<T>;
  /** Deletes every workspace, so that no process is left, then stops browser and server. */
  close(): Promise<void>;
}

const deletedWithinMs = 30_000;

/** `settings`: the server's, as environment variables. */
export async function setStage(settings: Record<string, string> = {}): Promise<Stage> {
  const server = await startServer(settings);
  const browser = await launch();
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const watched = await watch(context, server.url);
  context.setDefaultTimeout(patienceMs);
  const page = await context.newPage();

  async function api<T>(method: string, path: string, body?: unknown): Promise<T> {
    const storage = (await context.storageState()).origins.find(({ origin }) => origin === server.url);
    const key = storage?.localStorage.find(({ name }) => name === 'cde-session-key')?.value;
    const reply = await context.request.fetch(server.url + path, {
      method,
      timeout: patienceMs,
      headers: {
        origin: server.url,
        ...(key && { 'x-cde-session-key': key }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { data: JSON.stringify(body) }),
    });
    const text = await reply.text();
    if (!reply.ok()) throw new Error(`${method} ${path}: ${reply.status()} ${text}`);
    return (text ? JSON.parse(text) : undefined) as T;
  }
  const left = async () => (await api<{ items: Workspace[] }>('GET', '/api/v1/workspaces?limit=100')).items;
  return {
    server,
    browser,
    context,
    page,
    watched,
    api,
    async close() {
      try {
        // Agents survive a server that a failed test has killed; only a server stops them.
        if (!server.runs()) await server.restart();
        const deadline = Date.now() + deletedWithinMs;
        for (const { id } of await left())
          await api('DELETE', `/api/v1/workspaces/${id}?home=discard`).catch(() => {});
        while ((await left()).length > 0 && Date.now() < deadline) await page.waitForTimeout(100);
      } finally {
        await browser.close();
        await server.close();
      }
    },
  };
}

export const visible = (locator: Locator) => locator.waitFor({ state: 'visible', timeout: patienceMs });
export const gone = (locator: Locator) => locator.waitFor({ state: 'hidden', timeout: patienceMs });

/** The elements that make a page scroll sideways. */
export function widerThanPage(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return [];
    return [...document.querySelectorAll('*')]
      .filter((element) => element.getBoundingClientRect().right > clientWidth)
      .map((element) => `${element.tagName} ${element.className}`)
      .slice(0, 8);
  });
}

/** Controls without a name for screen readers. */
export function nameless(page: Page): Promise<string[]> {
  return page.evaluate(() =>
    [...document.querySelectorAll<HTMLElement>('button, a, input:not([type=hidden]), select, textarea')]
      .filter(
        (element) =>
          !element.getAttribute('aria-label') &&
          !element.title &&
          !element.textContent?.trim() &&
          !(element as HTMLInputElement).labels?.length,
      )
      .map((element) => element.outerHTML),
  );
}
