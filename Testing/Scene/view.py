"""A 3D view without a window: the displayable managers that a 3D view of Slicer has, on an offscreen window."""

from __future__ import annotations

import contextlib

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLVolumeRenderingDisplayableManager",
)


class ThreeDView:
    """Renders a scene as a 3D view of the application would."""

    def __init__(self, application, size: tuple[int, int] = (900, 700)) -> None:
        _load_triton_first()
        self._application = application
        scene = application.scene
        self.node = scene.AddNewNodeByClass("vtkMRMLViewNode", "View1")
        self.node.SetLayoutName("1")
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        self.node.SetBackgroundColor(0.10, 0.11, 0.14)
        self.node.SetBackgroundColor2(0.22, 0.24, 0.30)
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetSize(*size)
        self._renderer = vtk.vtkRenderer()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application.logic)
        for name in _MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(factory, self._renderer)
        self._group.SetMRMLDisplayableNode(self.node)
        self._slices = []

    def add_slice(self, image: slicer.vtkMRMLVolumeNode, pixels: int = 512) -> slicer.vtkMRMLSliceNode:
        """A slice view of an image, as the application has it, whose slice can be shown in this view."""
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self._application.logic)
        logic.SetMRMLScene(self._application.scene)
        node = logic.AddSliceNode("Red")
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(image.GetID())
        node.SetDimensions(pixels, pixels, 1)
        self._slices.append(logic)
        return node

    def fit_slices(self) -> None:
        """Zoom every slice view to its image."""
        for logic in self._slices:
            logic.FitSliceToBackground()

    def look(self, direction: np.ndarray, up: np.ndarray, zoom: float = 1.0) -> None:
        """Look along a direction in RAS at all that is shown."""
        camera = self._renderer.GetActiveCamera()
        centre = np.array(camera.GetFocalPoint())
        camera.SetPosition(*(centre - np.asarray(direction)))
        camera.SetViewUp(*up)
        self._renderer.ResetCamera()
        camera.Zoom(zoom)
        self._renderer.ResetCameraClippingRange()

    def picture(self) -> np.ndarray:
        """[H, W, 3] uint8."""
        return _grabbed(self._window)

    def pixel(self, ras: np.ndarray) -> tuple[int, int]:
        """(row, column) at which a point in RAS is drawn."""
        self._renderer.SetWorldPoint(*ras[:3], 1.0)
        self._renderer.WorldToDisplay()
        x, y, _ = self._renderer.GetDisplayPoint()
        return self._window.GetSize()[1] - 1 - round(y), round(x)

    def close(self) -> None:
        """Let the window and the managers go."""
        self._group.SetMRMLDisplayableNode(None)
        self._window.Finalize()


class SliceViews:
    """Red, Yellow and Green as the application has them: slice logics that draw, without windows."""

    SIZE = (480, 400)

    def __init__(self, application_logic: slicer.vtkSlicerApplicationLogic, scene: slicer.vtkMRMLScene) -> None:
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
        self._logics, known = {}, vtk.vtkCollection()
        for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLApplicationLogic(application_logic)
            logic.SetMRMLScene(scene)
            logic.AddSliceNode(name)
            logic.GetSliceNode().SetOrientation(orientation)
            logic.GetSliceNode().SetDimensions(*self.SIZE, 1)
            known.AddItem(logic)
            self._logics[name] = logic
        application_logic.SetSliceLogics(known)

    def node(self, name: str) -> slicer.vtkMRMLSliceNode:
        """The slice node of a view."""
        return self._logics[name].GetSliceNode()

    def logic(self, name: str) -> slicer.vtkMRMLSliceLogic:
        """The logic of a view."""
        return self._logics[name]

    def picture(self, name: str) -> np.ndarray:
        """[H, W] uint8: what a view draws, the top row first."""
        port = self._logics[name].GetImageDataConnection()
        if port is None:
            return np.zeros(self.SIZE[::-1], np.uint8)
        port.GetProducer().Update()
        image = port.GetProducer().GetOutput()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(*self.SIZE[::-1], -1)[::-1, :, 0]

    def middle(self, name: str, pixels: tuple[int, int], spacing_mm: tuple[float, float]) -> np.ndarray:
        """[H, W] uint8: what a view draws around its middle, at (columns, rows) `pixels` of a size in mm."""
        field = self.node(name).GetFieldOfView()
        across, down = (
            np.round(size / 2 - 0.5 + (np.arange(count) - (count - 1) / 2) * mm / whole * size).astype(int)
            for count, mm, whole, size in zip(pixels, spacing_mm, field, self.SIZE, strict=False)
        )
        return self.picture(name)[np.ix_(down, across)]

    def close(self) -> None:
        """Let the scene go."""
        for logic in self._logics.values():
            logic.SetMRMLScene(None)


_SLICE_MANAGERS = (
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)


class SliceWindow:
    """A slice view of :class:`SliceViews` in a window of its own: with markups, crosshair and legends, and a mouse."""

    def __init__(self, views: SliceViews, name: str, application_logic, markups_logic) -> None:
        _load_triton_first()
        application_logic.SetModuleLogic("Markups", markups_logic)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application_logic)
        for manager in _SLICE_MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self.node, self._logic = views.node(name), views.logic(name)
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetSize(*views.SIZE)
        self._window.SetNumberOfLayers(2)
        pictures, drawn = vtk.vtkRenderer(), vtk.vtkRenderer()
        drawn.SetLayer(1)
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._mapper)
        pictures.AddViewProp(actor)
        for renderer in (pictures, drawn):
            self._window.AddRenderer(renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(factory, drawn)
        self._group.SetMRMLDisplayableNode(self.node)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetDisplayableManagers(self._group)
        self._style.SetSliceLogic(self._logic)
        self._style.SetInteractor(self._interactor)

    def pixel(self, ras: np.ndarray) -> tuple[int, int]:
        """(row, column) at which a point in RAS is drawn."""
        inverse = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), inverse)
        x, y = inverse.MultiplyPoint([*map(float, ras[:3]), 1.0])[:2]
        return self._window.GetSize()[1] - 1 - round(y), round(x)

    def place(self, pixel: tuple[int, int]) -> np.ndarray:
        """[3] RAS of what is drawn at (row, column)."""
        row, column = pixel
        return np.array(self.node.GetXYToRAS().MultiplyPoint([column, self._window.GetSize()[1] - 1 - row, 0, 1])[:3])

    def click(self, pixel: tuple[int, int], button: str = "Left") -> None:
        """Move the mouse to (row, column) and click."""
        row, column = pixel
        self._interactor.SetEventInformation(column, self._window.GetSize()[1] - 1 - row, 0, 0, "\0", 0, None)
        for event in ("MouseMoveEvent", f"{button}ButtonPressEvent", f"{button}ButtonReleaseEvent"):
            self._style.DelegateInteractionEventToDisplayableManagers(getattr(vtk.vtkCommand, event))

    def picture(self) -> np.ndarray:
        """[H, W, 3] uint8."""
        self._mapper.SetInputConnection(self._logic.GetImageDataConnection())
        return _grabbed(self._window)

    def close(self) -> None:
        """Let the window and the managers go."""
        self._group.SetMRMLDisplayableNode(None)
        self._window.Finalize()


def _grabbed(window: vtk.vtkRenderWindow) -> np.ndarray:
    """[H, W, 3] uint8: what a window shows."""
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1]


def _load_triton_first() -> None:
    """Triton (of torch) and the software renderer each bring an LLVM; the process crashes where triton's comes second.

    Only tests have both in one process: in Slicer, torch is in the worker's.
    """
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401
