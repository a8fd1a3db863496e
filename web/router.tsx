import { type NetworkGrouping, networkGroupings } from '@cde/api/session-values.ts';
import {
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  Outlet,
  redirect,
} from '@tanstack/react-router';
import { isSignedOut } from './client.ts';
import { type RangeName, rangeNames } from './connection/ranges.ts';
import {
  meQuery,
  seesAudit,
  seesCleanup,
  seesClusters,
  seesHealth,
  seesSatellites,
  seesUsers,
} from './me.ts';
import { type NetworkRange, networkRangeNames } from './network/ranges.ts';
import { onlyFor } from './only-for.tsx';
import { queryClient } from './query-client.ts';
import { NotFound, PageFailed, Shell } from './shell.tsx';
import { localPath } from './sign-in/next.ts';
import { SignInPage } from './sign-in/sign-in-page.tsx';
import { ListPage } from './workspaces/list-page.tsx';
import { OpenPortPage } from './workspaces/open-port-page.tsx';
import { WorkspacePage } from './workspaces/workspace-page.tsx';

const text = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined);

const root = createRootRoute({ component: Outlet, notFoundComponent: NotFound });

const signIn = createRoute({
  getParentRoute: () => root,
  path: '/sign-in',
  component: SignInPage,
  validateSearch: (search): { next?: string } => ({ next: localPath(search.next) }),
});

/** All pages that need a sign-in. The layout loads the user before any of them renders. */
const signedIn = createRoute({
  getParentRoute: () => root,
  id: 'signed-in',
  component: Shell,
  errorComponent: PageFailed,
  loader: async ({ location }) => {
    try {
      await queryClient.ensureQueryData(meQuery);
    } catch (error) {
      if (isSignedOut(error)) throw redirect({ to: '/sign-in', search: { next: location.href } });
      throw error;
    }
  },
});

const page = <P extends string>(path: P) => ({ getParentRoute: () => signedIn, path });

const routeTree = root.addChildren([
  signIn,
  signedIn.addChildren([
    createRoute({
      ...page('/'),
      beforeLoad: () => {
        throw redirect({ to: '/workspaces', replace: true });
      },
    }),
    createRoute({
      ...page('/workspaces'),
      component: ListPage,
      validateSearch: (search): { q?: string; owner?: string; archived?: true } => ({
        q: text(search.q),
        owner: text(search.owner),
        archived: search.archived === true || undefined,
      }),
    }),
    createRoute({
      ...page('/workspaces/new'),
      component: lazyRouteComponent(() => import('./workspaces/create-page.tsx'), 'CreatePage'),
      validateSearch: (search): { template?: string; home?: string } => ({
        template: text(search.template),
        home: text(search.home),
      }),
    }),
    createRoute({ ...page('/workspaces/$owner/$name'), component: WorkspacePage }),
    createRoute({
      ...page('/workspaces/$owner/$name/terminal'),
      component: lazyRouteComponent(() => import('./terminal/terminal-page.tsx'), 'TerminalPage'),
      validateSearch: (search): { terminal?: string } => ({
        terminal: /^[A-Za-z0-9._-]{1,64}$/.test(String(search.terminal ?? ''))
          ? String(search.terminal)
          : undefined,
      }),
    }),
    createRoute({
      ...page('/workspaces/$owner/$name/connection'),
      component: lazyRouteComponent(() => import('./connection/connection-page.tsx'), 'ConnectionPage'),
      validateSearch: (search): { range?: RangeName; session?: string } => ({
        range: rangeNames.find((name) => name === search.range),
        session: text(search.session),
      }),
    }),
    createRoute({
      ...page('/health'),
      component: onlyFor(
        seesHealth,
        lazyRouteComponent(() => import('./health/health-page.tsx'), 'HealthPage'),
      ),
    }),
    createRoute({
      ...page('/network'),
      component: lazyRouteComponent(() => import('./network/network-page.tsx'), 'NetworkPage'),
      validateSearch: (search): { range?: NetworkRange; by?: NetworkGrouping } => ({
        range: networkRangeNames.find((name) => name === search.range),
        by: networkGroupings.find((name) => name === search.by),
      }),
    }),
    createRoute({
      ...page('/homes'),
      component: lazyRouteComponent(() => import('./homes/homes-page.tsx'), 'HomesPage'),
      validateSearch: (search): { owner?: string } => ({ owner: text(search.owner) }),
    }),
    createRoute({
      ...page('/clusters'),
      component: onlyFor(
        seesClusters,
        lazyRouteComponent(() => import('./clusters/clusters-page.tsx'), 'ClustersPage'),
      ),
    }),
    createRoute({
      ...page('/clusters/$cluster'),
      component: onlyFor(
        seesClusters,
        lazyRouteComponent(() => import('./clusters/cluster-page.tsx'), 'ClusterPage'),
      ),
    }),
    createRoute({
      ...page('/nodes'),
      component: onlyFor(
        seesClusters,
        lazyRouteComponent(() => import('./nodes/nodes-page.tsx'), 'NodesPage'),
      ),
      validateSearch: (search): { cluster?: string; problems?: true; q?: string } => ({
        cluster: text(search.cluster),
        problems: search.problems === true || undefined,
        q: text(search.q),
      }),
    }),
    createRoute({
      ...page('/nodes/$node'),
      component: onlyFor(
        seesClusters,
        lazyRouteComponent(() => import('./nodes/node-page.tsx'), 'NodePage'),
      ),
    }),
    createRoute({
      ...page('/satellites'),
      component: onlyFor(
        seesSatellites,
        lazyRouteComponent(() => import('./satellites/satellites-page.tsx'), 'SatellitesPage'),
      ),
    }),
    createRoute({
      ...page('/cleanup'),
      component: onlyFor(
        seesCleanup,
        lazyRouteComponent(() => import('./cleanup/cleanup-page.tsx'), 'CleanupPage'),
      ),
    }),
    createRoute({
      ...page('/cli-login'),
      component: lazyRouteComponent(() => import('./sign-in/cli-login-page.tsx'), 'CliLoginPage'),
      validateSearch: (search): { code?: string } => ({ code: text(search.code) }),
    }),
    createRoute({
      ...page('/ports/open'),
      component: OpenPortPage,
      validateSearch: (search): Partial<Record<'host' | 'to' | 'state', string>> => ({
        host: text(search.host),
        to: text(search.to),
        state: text(search.state),
      }),
    }),
    createRoute({
      ...page('/tokens'),
      component: lazyRouteComponent(() => import('./tokens/tokens-page.tsx'), 'TokensPage'),
    }),
    createRoute({
      ...page('/account'),
      component: lazyRouteComponent(() => import('./account/account-page.tsx'), 'AccountPage'),
    }),
    createRoute({
      ...page('/templates'),
      component: lazyRouteComponent(() => import('./templates/templates-page.tsx'), 'TemplatesPage'),
    }),
    createRoute({
      ...page('/templates/$template'),
      component: lazyRouteComponent(() => import('./templates/template-page.tsx'), 'TemplatePage'),
    }),
    createRoute({
      ...page('/users'),
      component: onlyFor(
        seesUsers,
        lazyRouteComponent(() => import('./users/users-page.tsx'), 'UsersPage'),
      ),
    }),
    createRoute({
      ...page('/audit'),
      component: onlyFor(
        seesAudit,
        lazyRouteComponent(() => import('./audit/audit-page.tsx'), 'AuditPage'),
      ),
      validateSearch: (
        search,
      ): Record<'actor' | 'action' | 'target' | 'since' | 'until', string | undefined> => ({
        actor: text(search.actor),
        action: text(search.action),
        target: text(search.target),
        since: text(search.since),
        until: text(search.until),
      }),
    }),
  ]),
]);

export const router = createRouter({
  routeTree,
  defaultPreload: 'intent',
  scrollRestoration: true,
  // The query cache decides what is fresh.
  defaultPreloadStaleTime: 0,
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
