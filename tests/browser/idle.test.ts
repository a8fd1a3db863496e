import type { Workspace } from '@cde/api/workspaces.ts';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { patienceMs, until } from '../kit/until.ts';
import { picture } from './pictures.ts';
import { starterTemplate } from './server.ts';
import { gone, nameless, type Stage, setStage, visible, widerThanPage } from './stage.ts';

let stage: Stage;
let server: Stage['server'];
let page: Stage['page'];
let api: Stage['api'];
let username: string;

const button = (name: string | RegExp) => page.getByRole('button', { name });
const dialog = () => page.getByRole('dialog');
const panel = (title: string) =>
  page.locator('section.panel').filter({ has: page.getByRole('heading', { name: title, exact: true }) });
const warning = () => page.locator('.stop-warning').filter({ hasText: /web stops/ });

beforeAll(async () => {
  stage = await setStage();
  ({ server, page, api } = stage);
  await page.goto(server.link);
  await visible(page.getByRole('heading', { name: 'Workspaces' }));
  username = (await api<{ username: string }>('GET', '/api/v1/users/me')).username;
  await api('POST', '/api/v1/templates', { files: starterTemplate() });
  const { id } = await api<Workspace>('POST', '/api/v1/workspaces', { name: 'web', template: 'local' });
  await until(
    () => api<Workspace>('GET', `/api/v1/workspaces/${id}`),
    ({ status, idle }) => status === 'running' && idle != null,
  );
});
afterAll(() => stage?.close());
afterEach(() => {
  expect(stage.watched.faults.splice(0)).toEqual([]);
});

/** It fits on a small screen, and readers hear what each control is. */
async function checkWidths(name: string): Promise<void> {
  await picture(page, name);
  for (const width of [360, 1280]) {
    await page.setViewportSize({ width, height: 800 });
    expect(await widerThanPage(page)).toEqual([]);
    expect(await nameless(page)).toEqual([]);
  }
}

describe('a workspace', () => {
  test('is listed with the time of its stop, and its page says why it is awake', async () => {
    await page.reload();
    await visible(page.getByRole('row', { name: /web/ }).getByText(/^in (59|1 h|60) ?(min)?/));
    await page.getByRole('link', { name: 'web', exact: true }).click();
    await visible(panel('Stop and start').getByText(/its start \(/));
    await visible(panel('Stop and start').getByText(/by the idle policy unless there is more activity/));
    await visible(panel('Activity').getByText(`started by ${username}`));
    await visible(panel('Activity').getByRole('img', { name: 'running: 1 stretch' }));
    await checkWidths('idle-workspace');
  });

  test('is kept awake, with a reason, and let go', async () => {
    await button('Other…').click();
    await dialog().getByLabel('For how long').fill('until tomorrow');
    await dialog().getByRole('button', { name: 'Keep awake' }).click();
    await visible(dialog().locator('.field-error'));
    await dialog().getByLabel('For how long').fill('2h30m');
    await dialog().getByLabel('Reason').fill('demo at 4');
    await dialog().getByRole('button', { name: 'Keep awake' }).click();
    await gone(dialog());
    const held = panel('Stop and start').getByRole('listitem');
    await visible(held.getByText('demo at 4'));
    await visible(panel('Activity').getByText(/kept awake for 2 h 30 min by \w+: demo at 4/));
    await visible(panel('Stop and start').getByText(/keep-awake by \w+ \(expires in 2 h/));
    await button(`End the keep-awake by ${username}`).click();
    await gone(held);
    await visible(panel('Stop and start').getByText(/keep-awake by \w+ \(expired/));
  });

  test('asks for more than the installation permits, and sees why not', async () => {
    await button('Other…').click();
    await dialog().getByLabel('For how long').fill('300d');
    await dialog().getByRole('button', { name: 'Keep awake' }).click();
    await visible(dialog().getByText('lease-too-long'));
    await page.keyboard.press('Escape');
    await gone(dialog());
  });

  test('has a schedule, within the bounds', async () => {
    await button('Schedule…').click();
    const stopAfter = dialog().getByLabel('Stop after', { exact: true });
    expect(await stopAfter.getByRole('option').allInnerTexts()).toContain(
      'As the template says: 1 h without activity',
    );
    await stopAfter.selectOption('This long without activity');
    await dialog().getByLabel('Length without activity').fill('1m');
    await dialog().getByLabel('Daily start and stop').selectOption('At these times');
    await dialog().getByLabel('Start optional').fill('8:30 PM');
    await dialog().getByLabel('Time zone').selectOption('Europe/Vienna');
    await dialog().getByLabel('Sat').check();
    await dialog().getByLabel('Do not stop it for idleness').check();
    await dialog().getByLabel('For how long').fill('2d');
    await dialog().getByRole('button', { name: 'Save' }).click();
    await visible(dialog().getByText(/Say why/));
    await visible(dialog().getByText(/Write times as HH:MM/));
    await dialog().getByLabel('Start optional').fill('08:30');
    await checkWidths('idle-schedule');
    await dialog().getByRole('textbox', { name: 'Reason' }).fill('load test');
    await dialog().getByRole('button', { name: 'Save' }).click();
    await gone(dialog());
    const shown = panel('Stop and start');
    await visible(shown.getByText('start 08:30, mon-sat (Europe/Vienna)'));
    await visible(shown.getByText(/until .*, by \w+: load test/));
    await visible(shown.getByText('5 min without activity'));
    await visible(shown.getByText('by the installation: stop after'));
    await visible(page.getByText('Saved. The installation limits some of it.'));
  });

  test('warns before it stops, and one button keeps it awake', async () => {
    await button('Schedule…').click();
    await dialog().getByLabel('Do not stop it for idleness').uncheck();
    await dialog().getByLabel('Daily start and stop').selectOption('None');
    await dialog().getByRole('button', { name: 'Save' }).click();
    await gone(dialog());
    await visible(panel('Stop and start').getByText(/by the idle policy unless/));
    // It always stops within five minutes: a warning would never go away.
    await gone(warning());
    await button('Schedule…').click();
    await dialog().getByLabel('Length without activity').fill('5m5s');
    await dialog().getByRole('button', { name: 'Save' }).click();
    await gone(dialog());
    await visible(warning().getByText(/web stops in \d+ (min|s)/));
    await checkWidths('idle-warning');
    await page.getByRole('link', { name: 'Workspaces', exact: true }).click();
    await visible(page.getByRole('row', { name: /web/ }).locator('.stops-soon'));
    await page.getByRole('link', { name: 'Terminal in web' }).click();
    await visible(warning().getByText(/web stops in \d+ (min|s)/));
    await checkWidths('idle-terminal');
    await page.goBack();
    await page.getByRole('link', { name: 'web', exact: true }).click();
    await warning().getByRole('button', { name: 'Keep awake for 1 hour' }).click();
    await gone(warning());
  });
});

describe('the list', () => {
  test('says what would be archived, and leads back', async () => {
    await page.getByRole('link', { name: 'Workspaces', exact: true }).click();
    await page.getByLabel('Which workspaces').selectOption('Archived');
    await visible(page.getByText('No archived workspaces'));
    await checkWidths('archived-none');
    await page.getByRole('link', { name: 'Show current workspaces' }).click();
    await page.getByRole('link', { name: 'web', exact: true }).click();
    await visible(panel('Stop and start'));
  });
});

describe('cleanup', () => {
  test('shows what is due, and why', async () => {
    await button('Schedule…').click();
    await dialog().getByLabel('Stop after', { exact: true }).selectOption('default');
    await dialog().getByRole('button', { name: 'Save' }).click();
    await gone(dialog());
    await button(`End the keep-awake by ${username}`).click();
    await gone(panel('Stop and start').getByRole('listitem'));
    await page.getByRole('link', { name: 'Cleanup' }).click();
    await visible(
      page
        .getByRole('row', { name: new RegExp(`${username}/web`) })
        .getByText(/by the idle policy/)
        .first(),
    );
  });

  test('reports the hours saved, by day and by what is chosen', async () => {
    const report = panel('Hours saved');
    await visible(report.getByText(/saved in 0 stops, 0 % of the hours/));
    await visible(report.getByRole('img', { name: /one bar a day/ }));
    await visible(report.getByRole('row', { name: /^local 0 h/ }));
    await report.getByRole('button', { name: 'By owner' }).click();
    await visible(report.getByRole('row', { name: new RegExp(`^${username} 0 h`) }));
  });

  test('has bounds that owners change', async () => {
    const bounds = panel('Bounds');
    await bounds.getByLabel('Longest choice').fill('half a day');
    await bounds.getByRole('button', { name: 'Save' }).click();
    await visible(bounds.locator('.field-error'));
    await bounds.getByLabel('Longest choice').fill('12h');
    await bounds.getByLabel('Brake, in percent').fill('50');
    await bounds.getByRole('button', { name: 'Save' }).click();
    await visible(page.getByText('The bounds are saved.'));
    expect(await api('GET', '/api/v1/cleanup/policy')).toMatchObject({
      maxStopAfterSeconds: 43_200,
      brakePercent: 50,
    });
    await checkWidths('cleanup');
    // Another admin saves in between: nothing of theirs is lost.
    await bounds.getByLabel('Brake, in percent').fill('60');
    const read = await api<Record<string, unknown>>('GET', '/api/v1/cleanup/policy');
    await api('PUT', '/api/v1/cleanup/policy', { ...read, maxNeverStopDays: 7 });
    await bounds.getByRole('button', { name: 'Save' }).click();
    await visible(bounds.getByText('Another admin has changed the cleanup policy since you read it.'));
    await picture(page, 'cleanup-conflict');
    await bounds.getByRole('button', { name: 'Discard mine, show theirs' }).click();
    await until(
      () => bounds.getByLabel('Longest never-stop, in days').inputValue(),
      (days) => days === '7',
    );
    expect(await bounds.getByLabel('Brake, in percent').inputValue()).toBe('50');
    // The server's word about one field, in the user's words and below it.
    await bounds.getByLabel('Stop after, by default').fill('');
    await bounds.getByRole('button', { name: 'Save' }).click();
    await visible(bounds.locator('.field-error').getByText(/^Cannot be never, because .* 12 h/));
    await bounds.getByLabel('Stop after, by default').fill('1h');
    await bounds.getByLabel('Holidays optional').fill('not a calendar');
    await bounds.getByRole('button', { name: 'Save' }).click();
    await visible(bounds.locator('.field-error, .problem').first());
  });

  test('is one sentence for those who cannot see it', async () => {
    await api('POST', '/api/v1/users', { username: 'mel', role: 'member', password: 'a long password' });
    const context = await stage.browser.newContext({ viewport: { width: 1280, height: 800 } });
    context.setDefaultTimeout(patienceMs);
    const member = await context.newPage();
    await member.goto(`${server.url}/sign-in`);
    await member.getByLabel('Username or email').fill('mel');
    await member.getByLabel('Password', { exact: true }).fill('a long password');
    await member.getByRole('button', { name: 'Sign in', exact: true }).click();
    await visible(member.getByRole('heading', { name: 'Workspaces' }));
    expect(await member.getByRole('link', { name: 'Cleanup' }).count()).toBe(0);
    for (const path of ['cleanup', 'users', 'audit', 'satellites']) {
      await member.goto(`${server.url}/${path}`);
      await visible(member.getByText('Your role cannot see this page'));
      expect(await member.getByRole('alert').count()).toBe(0);
    }
    await picture(member, 'not-allowed');
    await context.close();
  });
});

describe("another user's workspace", () => {
  test('offers no update that only its owner can make', async () => {
    const { id } = await api<Workspace>('POST', '/api/v1/workspaces', {
      name: 'theirs',
      owner: 'mel',
      template: 'local',
      start: false,
    });
    const [file, text] = Object.entries(starterTemplate())[0]!;
    await api('POST', '/api/v1/templates', { files: { [file]: `${text}\n# Another version.\n` } });
    await until(
      () => api<Workspace>('GET', `/api/v1/workspaces/${id}`),
      ({ outdated }) => outdated,
    );
    await page.goto(`${server.url}/workspaces/mel/theirs`);
    await button('More actions for theirs').click();
    const item = page.getByRole('menuitem', { name: 'Update… (only by its owner)' });
    await visible(item);
    expect(await item.isDisabled()).toBe(true);
    expect(await button('Update…').count()).toBe(0);
    await picture(page, 'foreign');
    await page.keyboard.press('Escape');
  });
});
