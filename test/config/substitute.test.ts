import { describe, expect, it } from 'vitest'
import { substitute } from '../../src/config/substitute.ts'

const ENV = { A: 'a', B: 'b', EMPTY: '', TRICK: '${file:/etc/shadow}', MONEY: '$&$1' }

const FILES: Readonly<Record<string, string>> = {
  '/run/secret': 's3cret\n',
  '/run/dos': 'value\r\n',
  '/run/two': 'one\n\n',
  '/run/trick': '${A}',
}

const readText = (path: string): string => {
  const text = FILES[path]
  if (text === undefined) throw new Error('no such file')
  return text
}

const run = (scalar: string) => substitute(scalar, ENV, readText)

describe('substitute', () => {
  it.each([
    ['a variable', '${A}', 'a'],
    ['several in one value', 'x-${A}${B}-y', 'x-ab-y'],
    ['a set variable wins over the default', '${A:-z}', 'a'],
    ['the default of one that is not set', '${NO:-z}', 'z'],
    ['the default of one that is set but empty', '${EMPTY:-z}', 'z'],
    ['an empty value where no default is given', '[${EMPTY}]', '[]'],
    ['an empty default', '[${NO:-}]', '[]'],
    ['a default with colons and slashes', '${NO:-http://127.0.0.1:8000}', 'http://127.0.0.1:8000'],
    ['a default over several lines', '${NO:-x\ny}', 'x\ny'],
    ['a file without the line break at its end', '${file:/run/secret}', 's3cret'],
    ['a file with the line break of Windows', '${file:/run/dos}', 'value'],
    ['one line break only', '${file:/run/two}', 'one\n'],
    ['nothing inside what a variable holds', '${TRICK}', '${file:/etc/shadow}'],
    ['nothing inside what a file holds', '${file:/run/trick}', '${A}'],
    ['what a replacement pattern would read', '${MONEY}', '$&$1'],
  ])('puts in %s', (_what, scalar, text) => {
    expect(run(scalar)).toEqual({ ok: true, text, isSubstituted: true })
  })

  it.each([
    ['a text without references', 'plain $A $(A) {A}', 'plain $A $(A) {A}'],
    ['an escaped reference', '$${A}', '${A}'],
    ['an escaped beginning alone', 'a$${', 'a${'],
  ])('counts %s as written in the file itself', (_what, scalar, text) => {
    expect(run(scalar)).toEqual({ ok: true, text, isSubstituted: false })
  })

  it('reads $$${A} as a dollar sign before an escaped reference', () => {
    expect(run('$$${A}')).toEqual({ ok: true, text: '$${A}', isSubstituted: false })
  })

  it('names the variable that is missing, and the cure', () => {
    expect(run('${A}${MISSING}')).toEqual({
      ok: false,
      expected: 'the environment variable MISSING',
      got: 'nothing',
      cure: 'set it, or write ${MISSING:-default}',
    })
  })

  it('names the file that cannot be read, and why', () => {
    expect(run('${file:/nowhere}')).toMatchObject({
      ok: false,
      expected: 'a readable file /nowhere',
      got: 'no such file',
    })
  })

  it.each(['${}', '${1A}', '${A-B}', '${A:+x}', '${A', 'x${', '${A:-${B}}', '${ A }'])(
    'refuses the malformed %s',
    (scalar) => {
      expect(run(scalar)).toMatchObject({ ok: false, expected: '${NAME}, ${NAME:-default} or ${file:/path}' })
    },
  )
})
