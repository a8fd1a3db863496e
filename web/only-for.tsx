import type { Role } from '@cde/api/endpoint.ts';
import { type AsyncRouteComponent, Link } from '@tanstack/react-router';
import { useMe } from './me.ts';
import { useTitle } from './shell.tsx';

/** A page for some roles. The others get one sentence instead of an error for each request that the page makes. */
export function onlyFor(
  sees: (role: Role) => boolean,
  Page: AsyncRouteComponent<object>,
): AsyncRouteComponent<object> {
  const Guarded: AsyncRouteComponent<object> = (props) =>
    sees(useMe().role) ? <Page {...props} /> : <NotAllowed />;
  Guarded.preload = Page.preload;
  return Guarded;
}

function NotAllowed() {
  const { role } = useMe();
  useTitle('Not allowed');
  return (
    <main id="main" className="empty">
      <strong>Your role cannot see this page</strong>
      <p>You are signed in as {role}. An owner of this installation can give you another role.</p>
      <Link className="button" to="/workspaces">
        Show workspaces
      </Link>
    </main>
  );
}
