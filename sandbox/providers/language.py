"""The language host: runs a Python program for the Pulumi engine, with the one that the SDK has for inline programs."""

import os
import runpy
import sys
from typing import Any

from pulumi.automation._server import LanguageServer  # the SDK has no public name for it


class Host(LanguageServer):
    """Takes the program from the request, where the SDK's has one from the beginning."""

    def Run(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        directory = request.info.program_directory or request.pwd
        os.chdir(directory)
        sys.path.insert(0, directory)
        self.program = lambda: runpy.run_path(os.path.join(directory, "__main__.py"), run_name="__main__")
        return super().Run(request, context)
