// `${VAR}`, `${VAR:-default}` and `${file:/path}` inside one scalar of the file. `$${` is a literal `${`.
//
// One pass from left to right: what was put in is never read again, so a value of the environment that happens to
// hold `${` cannot reach a file. A variable that is set but empty takes the default, as in a shell; without a
// default, empty is a value.

/** Reads a small text file. Throws an Error whose message is fit for the operator. */
export type ReadText = (path: string) => string

export type Substitution =
  | { readonly ok: true; readonly text: string; readonly isSubstituted: boolean }
  | { readonly ok: false; readonly expected: string; readonly got: string; readonly cure: string | null }

const REFERENCE = /\$\$\{|\$\{([^{}]*)\}|\$\{/g
const VARIABLE = /^([A-Za-z_]\w*)(?::-(.*))?$/s

/** Replaces every reference in a scalar. The first one that cannot be replaced is the answer. */
export function substitute(scalar: string, env: NodeJS.ProcessEnv, readText: ReadText): Substitution {
  if (!scalar.includes('${')) return { ok: true, text: scalar, isSubstituted: false }
  let text = ''
  let end = 0
  let isSubstituted = false
  for (const match of scalar.matchAll(REFERENCE)) {
    text += scalar.slice(end, match.index)
    end = match.index + match[0].length
    if (match[0] === '$${') {
      text += '${'
      continue
    }
    const value = match[1] === undefined ? malformed(scalar.slice(match.index)) : resolve(match[1], env, readText)
    if (typeof value !== 'string') return value
    text += value
    isSubstituted = true
  }
  return { ok: true, text: text + scalar.slice(end), isSubstituted }
}

type Failure = Extract<Substitution, { ok: false }>

function resolve(reference: string, env: NodeJS.ProcessEnv, readText: ReadText): string | Failure {
  if (reference.startsWith('file:')) return readReference(reference.slice('file:'.length), readText)
  const match = VARIABLE.exec(reference)
  if (match === null) return malformed(`\${${reference}}`)
  const name = match[1] as string
  const fallback = match[2]
  const value = env[name]
  if (fallback !== undefined) return value === undefined || value === '' ? fallback : value
  if (value !== undefined) return value
  return {
    ok: false,
    expected: `the environment variable ${name}`,
    got: 'nothing',
    cure: `set it, or write \${${name}:-default}`,
  }
}

function readReference(path: string, readText: ReadText): string | Failure {
  try {
    return readText(path).replace(/\r?\n$/, '')
  } catch (error) {
    const got = error instanceof Error ? error.message : String(error)
    return { ok: false, expected: `a readable file ${path}`, got, cure: 'mount it, or correct the path' }
  }
}

function malformed(reference: string): Failure {
  return {
    ok: false,
    expected: '${NAME}, ${NAME:-default} or ${file:/path}',
    got: JSON.stringify(reference.slice(0, 40)),
    cure: 'for the two characters themselves write $${',
  }
}
