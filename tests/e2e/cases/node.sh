# SPDX-License-Identifier: BSD-3-Clause
# what: node: fs in its three styles (sync, callbacks on the thread pool, promises), streams, workers, child processes, modules from the tree
# needs: node
set -u
cd "$D" || exit 1
mkdir -p node_modules/m; echo 'exports.f = x => x * 2' > node_modules/m/index.js; echo '{"name":"m","main":"index.js"}' > node_modules/m/package.json; echo '{"k": [1, 2]}' > data.json
echo 'export const g = 7; export default await import("./data2.mjs")' > esm.mjs; echo 'export const h = 8' > data2.mjs
cat > work.js <<'EOT'
const fs = require('fs'), path = require('path'), cp = require('child_process'), zlib = require('zlib'), { pipeline } = require('stream/promises');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (!isMainThread) {
	fs.writeFileSync('w' + workerData, 'x'.repeat(workerData * 1000));
	parentPort.postMessage(fs.statSync('w' + workerData).size);
	return;
}
if (process.argv[2] === 'child') {
	process.on('message', m => { process.send({ got: m, cwd: path.basename(process.cwd()), size: fs.readFileSync('a').length }); process.disconnect(); });
	return;
}
const attempt = (what, f) => { try { console.log(what, f()); } catch (e) { console.log(what, e.code); } };
(async () => {
	console.log(require('m').f(21), require('./data.json').k, (await import(process.cwd() + '/esm.mjs')).g);
	fs.writeFileSync('a', 'hello'); fs.appendFileSync('a', ' world'); attempt('read', () => fs.readFileSync('a', 'utf8')); attempt('none', () => fs.readFileSync('none'));
	fs.mkdirSync('d/e/f', { recursive: true }); attempt('mkdir', () => fs.mkdirSync('d')); attempt('rmdir', () => fs.rmdirSync('d')); attempt('readdir', () => fs.readdirSync('.').sort().join());
	fs.copyFileSync('a', 'd/b'); attempt('excl', () => fs.copyFileSync('a', 'd/b', fs.constants.COPYFILE_EXCL)); fs.renameSync('d/b', 'd/c'); fs.symlinkSync('c', 'd/l'); fs.linkSync('d/c', 'd/h'); attempt('links', () => [fs.readlinkSync('d/l'), fs.statSync('d/h').nlink, fs.lstatSync('d/l').isSymbolicLink(), path.basename(fs.realpathSync('d/l'))].join());
	const fd = fs.openSync('r', 'w+'); fs.writeSync(fd, Buffer.alloc(300000, 'z'), 0, 300000, 5); fs.ftruncateSync(fd, 200000); fs.futimesSync(fd, 5, 6); attempt('fstat', () => [fs.fstatSync(fd).size, fs.fstatSync(fd).mtimeMs].join()); fs.fsyncSync(fd); const b = Buffer.alloc(10); attempt('pread', () => fs.readSync(fd, b, 0, 10, 0) + b.toString('hex')); fs.closeSync(fd);
	await Promise.all([...Array(100).keys()].map(async i => { await fs.promises.writeFile('p' + i, 'p'.repeat(i * 100)); const s = await fs.promises.readFile('p' + i); if (s.length !== i * 100) console.log('bad', i); await fs.promises.rename('p' + i, 'q' + i); }));
	console.log('promises', (await fs.promises.readdir('.')).filter(n => n[0] === 'q').length); await Promise.all([...Array(100).keys()].map(i => fs.promises.unlink('q' + i)));
	await pipeline(fs.createReadStream('r'), zlib.createGzip(), zlib.createGunzip(), fs.createWriteStream('s')); console.log('streams', fs.readFileSync('r').equals(fs.readFileSync('s')));
	await new Promise((ok, no) => fs.open('cb', 'wx', (e, f) => e ? no(e) : fs.write(f, 'callback', () => fs.close(f, ok)))); console.log(fs.readFileSync('cb', 'utf8'));
	console.log('workers', await Promise.all([1, 2, 3, 4].map(n => new Promise((ok, no) => new Worker(__filename, { workerData: n }).on('message', ok).on('error', no)))));
	console.log('child', await new Promise(ok => { const c = cp.fork(__filename, ['child']); c.on('message', ok); c.send({ n: 1 }); }));
	console.log(cp.execSync('cat a; wc -c < r').toString().replace(/\n/g, ' '), cp.spawnSync('sh', ['-c', 'echo $0; exit 3']).status);
	const out = fs.openSync('redirected', 'w'); cp.spawnSync('echo', ['to a file'], { stdio: ['ignore', out, 'inherit'] }); fs.closeSync(out); console.log(fs.readFileSync('redirected', 'utf8').trim());
	for await (const e of await fs.promises.opendir('d', { recursive: false })) console.log('entry', e.isDirectory() || e.isFile() || e.isSymbolicLink());
	fs.accessSync('a', fs.constants.R_OK | fs.constants.W_OK); fs.chmodSync('a', 0o640); attempt('chmod', () => (fs.statSync('a').mode & 0o777).toString(8)); attempt('bigint', () => typeof fs.statSync('a', { bigint: true }).ino);
	await new Promise(ok => { fs.watchFile('a', { interval: 50 }, () => { fs.unwatchFile('a'); ok(); }); setTimeout(() => fs.writeFileSync('a', 'changed'), 200); }); console.log('watched');
	fs.rmSync('d', { recursive: true }); console.log(fs.existsSync('d'), fs.mkdtempSync('tmp-').length); fs.readdirSync('.').filter(n => n.startsWith('tmp-')).forEach(n => fs.rmdirSync(n));
})().catch(e => { console.log('failed', e); process.exit(1); });
EOT
node work.js; echo "status $?"; node -e 'process.stdout.write("x".repeat(100000))' > big; wc -c < big; node -p 'require("fs").readFileSync(0).length' < big; node --input-type=module -e 'import { h } from "'"$D"'/data2.mjs"; console.log(h)'
