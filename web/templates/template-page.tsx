import type { Parameter } from '@cde/api/template-parameters.ts';
import { getTemplate, listTemplateVersions } from '@cde/api/templates.ts';
import { useQuery } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { call, callAll } from '../client.ts';
import { useTitle } from '../shell.tsx';
import { Icon, Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';
import { TemplateIcon } from './template-icon.tsx';
import '../workspaces/workspaces.css';

/** A template: the parameters of its active version, and all versions. */
export function TemplatePage() {
  const { template: name } = useParams({ from: '/signed-in/templates/$template' });
  useTitle(name);
  const query = useQuery({
    queryKey: ['template', name],
    queryFn: ({ signal }) => call(getTemplate, { params: { template: name }, signal }),
  });
  const versions = useQuery({
    queryKey: ['template-versions', name],
    queryFn: ({ signal }) => callAll(listTemplateVersions, { params: { template: name }, signal }),
  });
  const template = query.data;
  return (
    <main id="main">
      <div className="page-head">
        {template && <TemplateIcon template={template} />}
        <h1>{template?.title || name}</h1>
        <span className="muted">{template?.provider}</span>
        <div className="end">
          <Link className="button primary" to="/workspaces/new" search={{ template: name }}>
            <Icon name="plus" /> New workspace
          </Link>
        </div>
        {template?.description && <p className="pre-line">{template.description}</p>}
      </div>
      <div className="stack">
        <Problem error={query.error ?? versions.error} retry={() => query.refetch()} />
        {query.isPending && !query.error && <Spinner />}
        {template && <Parameters parameters={template.activeVersion.parameters} />}
        {versions.data && (
          <section className="panel table-scroll" aria-labelledby="versions">
            <header>
              <h2 id="versions">Versions</h2>
            </header>
            <table>
              <thead>
                <tr>
                  <th scope="col">Version</th>
                  <th scope="col">Message</th>
                  <th scope="col">By</th>
                  <th scope="col">Published</th>
                </tr>
              </thead>
              <tbody>
                {versions.data.map((version) => (
                  <tr key={version.id}>
                    <td className="nowrap">
                      v{version.number} {version.active && <span className="chip">active</span>}
                    </td>
                    <td>{version.message || <span className="muted">none</span>}</td>
                    <td>{version.createdBy ?? 'system'}</td>
                    <td className="muted nowrap">
                      <Ago at={version.createdAt} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </section>
        )}
      </div>
    </main>
  );
}

function Parameters({ parameters }: { parameters: Parameter[] }) {
  if (parameters.length === 0) return null;
  return (
    <section className="panel table-scroll" aria-labelledby="parameters">
      <header>
        <h2 id="parameters">Parameters</h2>
      </header>
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Type</th>
            <th scope="col">Default</th>
            <th scope="col">Description</th>
          </tr>
        </thead>
        <tbody>
          {parameters.map((parameter) => (
            <tr key={parameter.name}>
              <td>
                <code>{parameter.name}</code>
              </td>
              <td>{parameter.type}</td>
              <td>
                {parameter.default === undefined ? (
                  <span className="muted">required</span>
                ) : (
                  <code>
                    {Array.isArray(parameter.default)
                      ? parameter.default.join(', ') || '(none)'
                      : String(parameter.default) || '(empty)'}
                  </code>
                )}
              </td>
              <td>
                {parameter.title}
                {parameter.description && <span className="hint"> {parameter.description}</span>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
