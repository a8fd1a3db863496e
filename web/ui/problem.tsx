import { CallError } from '../client.ts';
import { Icon } from './icons.tsx';

/** What went wrong: what happened, why, what to do, and the code and request id for whoever is asked. */
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
