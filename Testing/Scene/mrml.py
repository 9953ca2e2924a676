"""What the Slicer application does around a scene, in the parts that the scene functions rely on."""

from __future__ import annotations

import tempfile

import slicer

_LOGICS = (
    "vtkSlicerColorLogic",
    "vtkSlicerSequencesLogic",
    "vtkSlicerVolumeRenderingLogic",
    "vtkSlicerSubjectHierarchyModuleLogic",
    "vtkSlicerVolumesLogic",
    "vtkSlicerTransformLogic",
    "vtkSlicerModelsLogic",
    "vtkSlicerTablesLogic",
    "vtkSlicerPlotsLogic",
    "vtkSlicerMarkupsLogic",
)


class Application:
    """A scene, an application logic, and the module logics that register nodes and keep browsers going."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        self.module_logics = {}
        for name in _LOGICS:
            logic = getattr(slicer, name)()
            logic.SetMRMLApplicationLogic(self.logic)
            logic.SetMRMLScene(self.scene)
            self.module_logics[name] = logic
        self._remote_io = slicer.vtkMRMLRemoteIOLogic()
        self._remote_io.SetMRMLScene(self.scene)
        self._data_io = slicer.vtkDataIOManagerLogic()
        self._data_io.SetMRMLApplicationLogic(self.logic)
        self._data_io.SetAndObserveDataIOManager(self._remote_io.GetDataIOManager())
        self._remote_io.AddDataIOToScene()
        self._cache = tempfile.TemporaryDirectory()
        self._remote_io.GetCacheManager().SetRemoteCacheDirectory(self._cache.name)

    def close(self) -> None:
        """Empty the scene and let the logics go."""
        self.scene.Clear(True)
        for logic in self.module_logics.values():
            logic.SetMRMLScene(None)
        self.module_logics.clear()
        self._cache.cleanup()
