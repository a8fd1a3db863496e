import type { Action } from '@cde/api/actions.ts';
import { type ComponentType, createContext, useContext } from 'react';
import { CallError } from '../client.ts';
import { Icon } from './icons.tsx';

/** Shows one action. Provided by the application, because actions lead to pages, which are above this folder. */
export const ActionComponent = createContext<ComponentType<{ action: Action }> | null>(null);

/** An error's actions as buttons. */
export function ActionButtons({ actions }: { actions: readonly Action[] | undefined }) {
  const Component = useContext(ActionComponent);
  if (!Component || !actions || actions.length === 0) return null;
  return (
    <div className="row problem-actions">
      {actions.map((action) => (
        <Component key={JSON.stringify(action)} action={action} />
      ))}
    </div>
  );
}

/** An error: what happened, why, what to do, and the code and request id for support. */
export function Problem({ error, retry }: { error: unknown; retry?: () => void }) {
  if (!error) return null;
  const body = error instanceof CallError ? error.body : null;
  return (
    <div className="problem" role="alert">
      <Icon name="warning" />
      <div>
        <p className="problem-message">{body?.message ?? (error as Error).message}</p>
        {body?.detail && <p>{body.detail}</p>}
        {body?.hint && <p>{body.hint}</p>}
        <ActionButtons actions={body?.actions} />
        {body && (
          <p className="problem-code">
            <code>{body.code}</code>
            {body.requestId && <> · request {body.requestId}</>}
          </p>
        )}
      </div>
      {retry && (
        <button type="button" className="button small" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}
