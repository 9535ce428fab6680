"""TLS of a gateway, as sslyze sees it and as Nomad's command line uses it.

Usage: check.py PATH-OF-CSI-GATEWAY [PATH-OF-NOMAD]. Makes an authority and certificates, serves a scripted driver over TLS,
scans that, and has Nomad's command line ask with a client certificate where there is one. Prints each claim that held; the
first that does not ends it.
"""

import datetime
import ipaddress
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sslyze import (
    CertificateInfoExtraArgument,
    ScanCommand,
    ScanCommandAttempt,
    ScanCommandAttemptStatusEnum,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanStatusEnum,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER,
    MozillaTlsConfiguration,
    ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

PLUGIN = "demo.csi-gateway.example"


def held(text):
    print("ok:", text, flush=True)


class Authority:
    def __init__(self, folder, name):
        self.folder = pathlib.Path(folder)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = self.builder(self.name, self.key).add_extension(basic, critical=True)
        certificate = builder.add_extension(usage, critical=True).sign(self.key, hashes.SHA256())
        self.file = self.write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def builder(self, subject, key):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=90))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def pair(self, name, usage):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            self.builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate = certificate.public_bytes(serialization.Encoding.PEM)
        return self.write(f"{name}.crt", certificate), self.write(f"{name}.key", text, 0o600)

    def write(self, name, text, mode=0o644):
        path = self.folder / name
        path.write_bytes(text)
        path.chmod(mode)
        return str(path)


def serve(program, driver, more):
    arguments = [program, "serve", f"--csi-address=unix://{driver}", "--http-endpoint=127.0.0.1:0"]
    process = subprocess.Popen(arguments + more, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("listening on "):
            return process, line.removeprefix("listening on ").strip()
    raise AssertionError("the gateway ended before it served")


def scan(address, authority):
    host, port = address.removeprefix("https://").rsplit(":", 1)
    commands = SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER | {ScanCommand.TLS_1_3_EARLY_DATA}
    extra = ScanCommandsExtraArguments(certificate_info=CertificateInfoExtraArgument(pathlib.Path(authority)))
    request = ServerScanRequest(
        server_location=ServerNetworkLocation(hostname="localhost", ip_address=host, port=int(port)),
        scan_commands=commands,
        scan_commands_extra_arguments=extra,
    )
    scanner = Scanner()
    scanner.queue_scans([request])
    (result,) = scanner.get_results()
    assert result.scan_status == ServerScanStatusEnum.COMPLETED, result
    for name, attempt in vars(result.scan_result).items():
        if isinstance(attempt, ScanCommandAttempt) and attempt.status == ScanCommandAttemptStatusEnum.ERROR:
            raise AssertionError(f"{name}: {attempt.error_trace}")
    return result


def check_scan(result):
    found = result.scan_result
    for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        suites = getattr(found, f"{version}_cipher_suites").result.accepted_cipher_suites
        assert not suites, f"{version}: {suites}"
    for version in ("tls_1_2", "tls_1_3"):
        suites = getattr(found, f"{version}_cipher_suites").result.accepted_cipher_suites
        held(f"{version}: {', '.join(suite.cipher_suite.name for suite in suites)}")
        assert suites, version
    assert not found.heartbleed.result.is_vulnerable_to_heartbleed
    assert not found.openssl_ccs_injection.result.is_vulnerable_to_ccs_injection
    assert found.robot.result.robot_result.name.startswith("NOT_VULNERABLE"), found.robot.result
    assert not found.session_renegotiation.result.is_vulnerable_to_client_renegotiation_dos
    assert found.session_renegotiation.result.supports_secure_renegotiation
    assert not found.tls_1_3_early_data.result.supports_early_data
    assert not found.tls_compression.result.supports_compression
    assert found.tls_extended_master_secret.result.supports_ems_extension
    held("no known weakness of a TLS server")
    (deployment,) = found.certificate_info.result.certificate_deployments
    for path in deployment.path_validation_results:
        is_ours = not path.trust_store.name.lower().startswith(("android", "apple", "java", "mozilla", "windows"))
        assert path.was_validation_successful == is_ours, path
    held("the certificate is good for who trusts the test's authority, and for nobody else")
    profile = MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
    try:
        check_server_against_tls_configuration(result, profile)
    except ServerNotCompliantWithTlsConfiguration as error:
        # That its authority is nobody's but the test's is as it should be.
        issues = {key: text for key, text in error.issues.items() if key != "certificate_path_validation"}
        assert not issues, issues
    held("Mozilla's intermediate profile")


def run_nomad(nomad, address, authority, certificate, key):
    environment = {
        "PATH": os.environ["PATH"],
        "NOMAD_ADDR": address,
        "NOMAD_CACERT": authority,
        "NOMAD_CLIENT_CERT": certificate,
        "NOMAD_CLIENT_KEY": key,
    }

    def run(*arguments, without=()):
        known = {name: value for name, value in environment.items() if name not in without}
        return subprocess.run(
            [nomad, *arguments], env=known, capture_output=True, text=True, timeout=60, check=False
        )

    end = time.monotonic() + 30
    while PLUGIN not in (done := run("plugin", "status")).stdout:
        assert time.monotonic() < end, done
        time.sleep(0.1)
    done = run("plugin", "status", PLUGIN)
    assert done.returncode == 0 and "Nodes Healthy" in done.stdout, done
    held("Nomad's command line reads a plugin with a client certificate")
    done = run("plugin", "status", without=("NOMAD_CLIENT_CERT", "NOMAD_CLIENT_KEY"))
    assert done.returncode != 0 and "certificate" in done.stderr, done
    done = run("plugin", "status", without=("NOMAD_CACERT",))
    assert done.returncode != 0 and "authority" in done.stderr, done
    held("and nothing without it, or without the authority")


def main():
    program, nomad = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="csi-gateway-tls") as folder:
        authority = Authority(folder, "authority")
        certificate, key = authority.pair("server", ExtendedKeyUsageOID.SERVER_AUTH)
        client, client_key = authority.pair("client", ExtendedKeyUsageOID.CLIENT_AUTH)
        driver = f"{folder}/csi.sock"
        processes = [subprocess.Popen([program, "demo", f"--driver-only={driver}"], stdout=subprocess.DEVNULL)]
        files = [f"--tls-cert-file={certificate}", f"--tls-key-file={key}"]
        try:
            # sslyze opens some hundred connections one after the other.
            process, address = serve(program, driver, files + ["--max-conns-per-client=0"])
            processes.append(process)
            check_scan(scan(address, authority.file))
            if nomad:
                asking = ["--tls-client-auth=required", f"--tls-client-ca-file={authority.file}"]
                process, address = serve(program, driver, files + asking)
                processes.append(process)
                run_nomad(nomad, address, authority.file, client, client_key)
            else:
                print("skipped: Nomad's command line, which is not here", flush=True)
        finally:
            for process in processes:
                process.terminate()
                process.wait(timeout=20)


if __name__ == "__main__":
    main()
