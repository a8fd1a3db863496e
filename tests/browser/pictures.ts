import { join } from 'node:path';
import type { Page } from 'playwright-core';

/** With CDE_TEST_PICTURES=FOLDER, takes screenshots of the page for a person to look at: light, dark and narrow. */
export async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env.CDE_TEST_PICTURES;
  if (!folder) return;
  const usual = page.viewportSize() ?? { width: 1280, height: 800 };
  const take = (look: string) => page.screenshot({ path: join(folder, `${name}-${look}.png`) });
  await page.emulateMedia({ colorScheme: 'light' });
  await take('light');
  await page.emulateMedia({ colorScheme: 'dark' });
  await take('dark');
  await page.setViewportSize({ width: 390, height: 844 });
  await take('narrow-dark');
  await page.emulateMedia({ colorScheme: 'light' });
  await take('narrow');
  await page.setViewportSize(usual);
}
