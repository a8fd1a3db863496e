import { getTemplate } from '@cde/api/templates.ts';
import { updateWorkspace, type Workspace } from '@cde/api/workspaces.ts';
import { useMutation, useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { CallError, call, newIdempotencyKey } from '../client.ts';
import { Dialog } from '../ui/dialog.tsx';
import { Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { useBuildBegan } from './build-began.ts';
import { ParameterFields } from './parameter-fields.tsx';
import {
  type Draft,
  immutableState,
  type Problems,
  placeIssues,
  readDraft,
  startDraft,
} from './parameter-form.ts';

/** Updates a workspace to the active template version and optionally changes its parameters. */
export function UpdateDialog({ workspace, onClose }: { workspace: Workspace; onClose: () => void }) {
  const began = useBuildBegan();
  const template = useQuery({
    queryKey: ['template', workspace.template],
    queryFn: ({ signal }) => call(getTemplate, { params: { template: workspace.template }, signal }),
    // The form must match the version that is active now.
    staleTime: 0,
  });
  const parameters = template.data?.activeVersion.parameters ?? [];
  const [changed, setChanged] = useState<Draft>({});
  const [problems, setProblems] = useState<Problems>({});
  const draft = { ...startDraft(parameters, workspace.parameters), ...changed };
  const update = useMutation({
    mutationFn: (values: Workspace['parameters']) =>
      call(updateWorkspace, {
        params: { workspace: workspace.id },
        body: { parameters: values },
        idempotencyKey: newIdempotencyKey(),
      }),
    onSuccess: (build) => {
      began(build, workspace);
      onClose();
    },
    onError: (error) => {
      if (error instanceof CallError) setProblems(placeIssues(parameters, error.body.issues).problems);
    },
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    // Unchanged values need no check: this version may no longer allow an immutable one.
    const open = parameters.filter(
      (each) => each.name in changed || immutableState(each, workspace.parameters) === 'mutable',
    );
    const read = readDraft(open, draft);
    setProblems(read.problems);
    if (Object.keys(read.problems).length === 0) update.mutate(read.values);
  }
  const version = template.data?.activeVersion.number;
  return (
    <Dialog
      title={workspace.outdated ? `Update ${workspace.name}` : `Parameters of ${workspace.name}`}
      onClose={onClose}
      wide
    >
      <form onSubmit={submit} noValidate>
        <p>
          {version !== undefined && version !== workspace.templateVersion
            ? `From version ${workspace.templateVersion} of ${workspace.template} to version ${version}. `
            : ''}
          The workspace restarts. Its home is kept; running programs stop.
        </p>
        {template.isPending && <Spinner />}
        <Problem error={template.error} retry={() => template.refetch()} />
        {template.data && parameters.length === 0 && (
          <p className="muted">This template has no parameters.</p>
        )}
        <ParameterFields
          parameters={parameters}
          draft={draft}
          problems={problems}
          existing={workspace.parameters}
          onChange={(name, value) => {
            setChanged({ ...changed, [name]: value });
            setProblems(({ [name]: _gone, ...rest }) => rest);
          }}
        />
        {Object.keys(problems).length === 0 && <Problem error={update.error} />}
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button
            type="submit"
            className="button primary"
            disabled={update.isPending || !template.data || (!workspace.outdated && parameters.length === 0)}
          >
            {workspace.outdated ? 'Update and restart' : 'Apply and restart'}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
