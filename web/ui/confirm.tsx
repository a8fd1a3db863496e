import { useMutation } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Dialog } from './dialog.tsx';
import { Problem } from './problem.tsx';

/** Asks before something that cannot be undone, does it, and says why when it could not be done. */
export function ConfirmDialog({
  title,
  children,
  keep,
  confirm,
  act,
  onClose,
}: {
  title: string;
  children: ReactNode;
  /** The button that leaves all as it is: `Keep it`. */
  keep: string;
  confirm: string;
  act: () => Promise<unknown>;
  onClose: () => void;
}) {
  const run = useMutation({ mutationFn: act, onSuccess: onClose });
  return (
    <Dialog title={title} onClose={onClose}>
      <div className="body">
        <p>{children}</p>
        <Problem error={run.error} />
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            {keep}
          </button>
          <button
            type="button"
            className="button danger filled"
            disabled={run.isPending}
            onClick={() => run.mutate()}
          >
            {confirm}
          </button>
        </div>
      </div>
    </Dialog>
  );
}
