import { WorkspaceName } from '@cde/api/names.ts';
import { listTemplates, type Template } from '@cde/api/templates.ts';
import { createWorkspace, type RetainedHome } from '@cde/api/workspaces.ts';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { type FormEvent, useRef, useState } from 'react';
import { CallError, call, callAll, newIdempotencyKey } from '../client.ts';
import { useMe } from '../me.ts';
import { useTitle } from '../shell.tsx';
import { TemplateIcon } from '../templates/template-icon.tsx';
import { Field } from '../ui/field.tsx';
import { Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { HomeChoice, useRestorable } from './home-choice.tsx';
import { ParameterFields } from './parameter-fields.tsx';
import { type Draft, type Problems, placeIssues, readDraft, startDraft } from './parameter-form.ts';

export function CreatePage() {
  useTitle('New workspace');
  const { template: chosen, home: chosenHome } = useSearch({ from: '/signed-in/workspaces/new' });
  const templates = useQuery({
    queryKey: ['templates'],
    queryFn: ({ signal }) => callAll(listTemplates, { signal }),
  });
  const { homes, waits, error: homesError, retry } = useRestorable(chosenHome);
  const list = templates.data ?? [];
  const template = list.find((one) => one.name === chosen) ?? (list.length === 1 ? list[0] : undefined);
  const home = homes.find(({ id }) => id === chosenHome);
  // Wait until the home to restore is known, so that nobody creates a workspace with an empty home by accident.
  const isReady = !waits && (chosenHome === undefined || !homesError);
  return (
    <main id="main" className="narrow">
      <div className="page-head">
        <h1>New workspace</h1>
      </div>
      <div className="stack">
        <Problem error={templates.error} retry={() => templates.refetch()} />
        {templates.isPending && !templates.error && (
          <p className="row muted" role="status">
            <Spinner /> Loading templates…
          </p>
        )}
        {templates.data?.length === 0 && (
          <div className="panel empty">
            <strong>No templates yet</strong>
            <p>
              Ask a template admin to publish one with <code>cde template push FOLDER</code>.
            </p>
          </div>
        )}
        <Problem error={homesError} retry={retry} />
        {templates.data && isReady && <HomeNotice asked={chosenHome} home={home} template={template} />}
        {list.length > 0 && (
          <nav aria-label="Templates" className="cards">
            {list.map((one) => (
              <Link
                key={one.id}
                className={one === template ? 'panel card chosen' : 'panel card'}
                to="/workspaces/new"
                search={{ template: one.name, home: chosenHome }}
                replace
              >
                <TemplateIcon template={one} />
                <span>
                  <strong>{one.title || one.name}</strong>
                  {one.description && <span className="hint">{one.description}</span>}
                </span>
              </Link>
            ))}
          </nav>
        )}
        {template && isReady && (
          <CreateForm
            key={template.activeVersion.id}
            template={template}
            homes={homes}
            home={home?.provider === template.provider ? home : undefined}
          />
        )}
      </div>
    </main>
  );
}

/** Explains why the form does not use the home from the URL. */
function HomeNotice({
  asked,
  home,
  template,
}: {
  asked: string | undefined;
  home: RetainedHome | undefined;
  template: Template | undefined;
}) {
  if (asked === undefined) return null;
  if (!home)
    return (
      <p className="notice">
        The home is no longer available: it was restored or discarded, or its grace period ended. A workspace
        created here gets an empty home.
      </p>
    );
  if (template?.provider === home.provider) return null;
  return (
    <p className="notice">
      The home of {home.owner}/{home.workspace} belongs to the provider {home.provider}. Choose a template
      with that provider to restore it.
    </p>
  );
}

function nameProblem(name: string): string | undefined {
  const parsed = WorkspaceName.safeParse(name);
  return parsed.success ? undefined : capitalised(parsed.error.issues[0]?.message ?? 'not a name');
}

const capitalised = (sentence: string) => `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`;

function CreateForm({
  template,
  homes,
  home,
}: {
  template: Template;
  homes: RetainedHome[];
  /** Restored into the workspace. */
  home: RetainedHome | undefined;
}) {
  const { parameters } = template.activeVersion;
  const me = useMe();
  const navigate = useNavigate();
  const client = useQueryClient();
  const form = useRef<HTMLFormElement>(null);
  const owner = home?.owner ?? me.username;
  const [name, setName] = useState(home?.workspace ?? '');
  const [homeFault, setHomeFault] = useState<string>();
  const [nameFault, setNameFault] = useState<string>();
  const [draft, setDraft] = useState<Draft>(() => startDraft(parameters));
  const [problems, setProblems] = useState<Problems>({});
  // Resubmitting after no answer repeats the same request; a changed form makes a new one.
  const attempt = useRef({ body: '', key: '' });

  const create = useMutation({
    mutationFn: (values: ReturnType<typeof readDraft>['values']) => {
      const body = {
        name,
        template: template.name,
        parameters: values,
        start: true,
        ...(home && { home: home.id }),
        ...(owner !== me.username && { owner }),
      };
      const text = JSON.stringify(body);
      if (attempt.current.body !== text) attempt.current = { body: text, key: newIdempotencyKey() };
      return call(createWorkspace, { body, idempotencyKey: attempt.current.key });
    },
    onSuccess: async (workspace) => {
      client.setQueryData(['workspace', `${workspace.owner}~${workspace.name}`], workspace);
      void client.invalidateQueries({ queryKey: ['workspaces'] });
      void client.invalidateQueries({ queryKey: ['homes'] });
      await navigate({
        to: '/workspaces/$owner/$name',
        params: { owner: workspace.owner, name: workspace.name },
      });
    },
    onError: (error) => {
      // There was an answer, so submitting the same form again is a new request.
      if (!(error instanceof CallError) || error.status === 0) return;
      attempt.current.body = '';
      const issues = error.body.issues ?? [];
      setProblems(
        placeIssues(
          parameters,
          issues.filter((issue) => issue.path !== 'name' || error.code === 'parameters-invalid'),
        ).problems,
      );
      const fault = issues.find((issue) => issue.path === 'name' && error.code === 'bad-request');
      if (fault) setNameFault(capitalised(fault.message));
      if (error.code === 'workspace-name-taken') setNameFault(error.body.message);
      if (error.code === 'home-not-found' || error.code === 'home-not-restorable')
        setHomeFault([error.body.message, error.body.hint].filter(Boolean).join(' '));
      focusFirstFault();
    },
  });

  function focusFirstFault() {
    requestAnimationFrame(() =>
      form.current
        ?.querySelector<HTMLElement>(
          ':is(input, select, textarea)[aria-invalid], fieldset[aria-invalid] input',
        )
        ?.focus(),
    );
  }
  function submit(event: FormEvent) {
    event.preventDefault();
    const read = readDraft(parameters, draft);
    const wrongName = name === '' ? 'A name is required.' : nameProblem(name);
    setProblems(read.problems);
    setNameFault(wrongName);
    setHomeFault(undefined);
    if (wrongName || Object.keys(read.problems).length > 0) focusFirstFault();
    else create.mutate(read.values);
  }
  function change(parameter: string, value: Draft[string]) {
    const next = { ...draft, [parameter]: value };
    setDraft(next);
    // While typing: clear a problem once it is fixed, and show a new one only if the field already had one.
    setProblems((known) => {
      const { [parameter]: old, ...rest } = known;
      const now = readDraft(parameters, next).problems[parameter];
      return old !== undefined && now !== undefined ? { ...rest, [parameter]: now } : rest;
    });
  }
  const placed = Object.keys(problems).length > 0 || nameFault !== undefined || homeFault !== undefined;
  return (
    <form ref={form} className="panel" onSubmit={submit} noValidate aria-label="New workspace">
      <div className="body stack">
        <Field
          label="Name"
          error={nameFault}
          hint={
            <>
              Reached as <code>ssh {name && !nameProblem(name) ? name : 'NAME'}.cde</code>
            </>
          }
        >
          {(aria) => (
            <input
              {...aria}
              name="name"
              value={name}
              onChange={(event) => {
                setName(event.target.value);
                setNameFault(event.target.value === '' ? undefined : nameProblem(event.target.value));
              }}
              placeholder={`${template.name}-1`}
              autoComplete="off"
              autoCapitalize="none"
              spellCheck={false}
              maxLength={64}
              // biome-ignore lint/a11y/noAutofocus: the first field of this page
              autoFocus
            />
          )}
        </Field>
        <HomeChoice
          homes={homes}
          chosen={home}
          provider={template.provider}
          error={homeFault}
          onChange={(next) => {
            setHomeFault(undefined);
            void navigate({
              to: '/workspaces/new',
              search: { template: template.name, home: next },
              replace: true,
            });
          }}
        />
        <ParameterFields parameters={parameters} draft={draft} problems={problems} onChange={change} />
        {!placed && <Problem error={create.error} />}
        <div className="form-foot">
          <span className="muted small-text">
            {owner}/{name || 'NAME'} from {template.name} v{template.activeVersion.number}
          </span>
          <button type="submit" className="button primary" disabled={create.isPending}>
            {create.isPending ? 'Creating…' : 'Create and start'}
          </button>
        </div>
      </div>
    </form>
  );
}
