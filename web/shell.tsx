import { signOut } from '@cde/api/identity.ts';
import { useQueryClient } from '@tanstack/react-query';
import {
  type ErrorComponentProps,
  Link,
  Outlet,
  useLocation,
  useNavigate,
  useRouter,
} from '@tanstack/react-router';
import { useEffect, useRef, useState } from 'react';
import { call } from './client.ts';
import { useLiveState } from './live/live.ts';
import {
  seesAudit,
  seesCleanup,
  seesClusters,
  seesHealth,
  seesNetwork,
  seesSatellites,
  seesUsers,
  useMe,
} from './me.ts';
import { forgetSessionKey } from './session-key.ts';
import { Icon, Spinner } from './ui/icons.tsx';
import { Menu } from './ui/menu.tsx';
import { Problem } from './ui/problem.tsx';
import { sayFailed, Toasts } from './ui/toast.tsx';

/** The frame of every signed-in page. */
export function Shell() {
  const me = useMe();
  const nav = useRef<HTMLElement>(null);
  const path = useLocation({ select: ({ pathname }) => pathname });
  // On a narrow screen not all links are visible at once.
  useEffect(() => {
    if (path)
      nav.current?.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' });
  }, [path]);
  return (
    <div className="shell">
      <a className="skip" href="#main">
        Skip to the page
      </a>
      <header className="bar">
        <Link to="/workspaces" className="brand" aria-label="cde, workspaces">
          <img src="/favicon.svg" alt="" width="22" height="22" />
          <span>cde</span>
        </Link>
        <nav aria-label="Pages" ref={nav}>
          <Link to="/workspaces">Workspaces</Link>
          <Link to="/homes">Homes</Link>
          <Link to="/templates">Templates</Link>
          {seesClusters(me.role) && <Link to="/clusters">Clusters</Link>}
          {seesClusters(me.role) && <Link to="/nodes">Nodes</Link>}
          {seesSatellites(me.role) && <Link to="/satellites">Satellites</Link>}
          {seesNetwork(me.role) && <Link to="/network">Network</Link>}
          {seesHealth(me.role) && <Link to="/health">Health</Link>}
          {seesCleanup(me.role) && <Link to="/cleanup">Cleanup</Link>}
          {seesUsers(me.role) && <Link to="/users">Users</Link>}
          {seesAudit(me.role) && <Link to="/audit">Audit</Link>}
        </nav>
        <div className="bar-end">
          <LiveNotice />
          <UserMenu />
        </div>
      </header>
      <Outlet />
      <Toasts />
    </div>
  );
}

// Shorter gaps happen at every deploy of the server; showing them would only flicker.
const tolerableGapMs = 1500;

function LiveNotice() {
  const state = useLiveState();
  const [said, setSaid] = useState(false);
  useEffect(() => {
    setSaid(false);
    if (state !== 'reconnecting') return;
    const timer = setTimeout(() => setSaid(true), tolerableGapMs);
    return () => clearTimeout(timer);
  }, [state]);
  return (
    <div role="status">
      {said && (
        <span
          className="live-state"
          title="No live connection to the server. Pages refresh every few seconds."
        >
          <Spinner /> Reconnecting…
        </span>
      )}
    </div>
  );
}

function UserMenu() {
  const me = useMe();
  const navigate = useNavigate();
  const client = useQueryClient();
  async function leave() {
    try {
      await call(signOut);
    } catch (error) {
      sayFailed('Could not sign out.', error);
      return;
    }
    client.clear();
    forgetSessionKey();
    // Loads a new document, so that nothing of this session stays in memory.
    location.assign('/sign-in');
  }
  return (
    <Menu
      label={`Signed in as ${me.username}`}
      className="button quiet small user-button"
      items={[
        { label: 'Account', run: () => navigate({ to: '/account' }) },
        { label: 'Tokens', run: () => navigate({ to: '/tokens' }) },
        { label: 'API reference', run: () => location.assign('/api/docs') },
        { label: 'Sign out', run: leave },
      ]}
    >
      <span className="user-name">{me.username}</span>
      <Icon name="chevron" />
    </Menu>
  );
}

export function NotFound() {
  useTitle('Not found');
  return (
    <main id="main" className="empty">
      <strong>There is no such page</strong>
      <p>The address may be misspelled, or the page no longer exists.</p>
      <Link className="button" to="/workspaces">
        Show workspaces
      </Link>
    </main>
  );
}

export function PageFailed({ error, reset }: ErrorComponentProps) {
  const router = useRouter();
  return (
    <main id="main" className="narrow">
      <Problem
        error={error}
        retry={() => {
          reset();
          void router.invalidate();
        }}
      />
    </main>
  );
}

/** The tab's title. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · cde`;
  }, [title]);
}
